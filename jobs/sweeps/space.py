"""What a sweep varies: `key=loguniform(1e-4,1e-2)` and its kin, checked before anything starts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genimg.errors import InputError, nearest
from genimg.section import deciding, parse_value

if TYPE_CHECKING:
    from genimg.recipe import Recipe

# name: (numbers it takes, what they are); those of Ray Tune, with its meaning
FORMS = {
    "uniform": (2, "(low, high)"),
    "loguniform": (2, "(low, high), both above 0"),
    "randint": (2, "(low, high), integers from low to high - 1"),
    "lograndint": (2, "(low, high), integers from low to high - 1, both above 0"),
    "choice": (None, "(one, another, ...)"),
}

# what is held out, how it is looked at, and for what
_YARDSTICK = ("data", "evaluation", "task", "styles")
_ONLY_TRAINED_ON = ("data.augment", "data.translate", "data.augmentations")
_LIKELIHOOD = ("loss.likelihood", "loss.binarise")  # what a bound is of: density, gray, black
_BOUNDS = ("elbo", "log_likelihood")
_CLASSES = (
    "classes", "model.conditional", "model.classes", "model.shares", "model.text",
    "model.vocabulary",
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """The values that a key may take in a sweep."""

    form: str
    arguments: tuple[Any, ...]
    text: str  # as it was given

    def domain(self) -> Any:
        """As Ray Tune wants it."""
        from ray import tune

        if self.form == "choice":
            return tune.choice(list(self.arguments))
        return getattr(tune, self.form)(*self.arguments)

    def ends(self) -> tuple[Any, ...]:
        """Values that have to be valid if all are: both ends, or every choice."""
        if self.form == "choice":
            return self.arguments
        low, high = self.arguments
        return (low, high - 1) if self.form.endswith("int") else (low, high)

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.form == "choice":
            return len(self.arguments)
        low, high = self.arguments
        return high - low if self.form.endswith("int") else math.inf

    def values(self) -> Iterable[Any]:
        """All of them, where `size` is finite."""
        return self.arguments if self.form == "choice" else range(*self.arguments)

    @property
    def logarithmic(self) -> bool:
        return self.form.startswith("log")


def parse_space(recipe: Recipe, assignments: Iterable[str]) -> tuple[list[str], dict[str, Range]]:
    """(plain overrides, {key: range}) of assignments; InputError where a range is no good.

    Unknown keys, keys that trials are measured by, empty ranges and ends that the recipe refuses
    are found here.
    """
    plain: list[str] = []
    space: dict[str, Range] = {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        call = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", text, re.DOTALL)
        key = key.strip()
        if key in space:  # a plain value before is overridden, as it is by another plain one
            raise InputError(f"{key} varies already; give one range, and no value after it")
        if call:
            space[key] = parse_range(key, call[1], call[2], "".join(text.split()))
        else:
            plain.append(assignment)
    if not space:
        raise InputError(
            "nothing varies; give at least one range, as in 'train.lr=loguniform(1e-4,1e-2)'"
        )
    base = recipe.override(plain)
    refuse_taken_back(base, plain, space)
    for key, each in space.items():
        refuse_yardstick(base, key)
        refuse_classes(base, key)
        for value in each.ends():
            try:
                base.override([override_of(key, value)])
            except InputError as error:
                told = str(error)
                raise InputError(
                    told if told.startswith("unknown") else f"{key}={each.text}: {told}"
                ) from None
    return plain, space


def refuse_yardstick(recipe: Recipe, key: str) -> None:
    """InputError where trials would be measured by different yardsticks.

    What `evaluate` gives for the same networks depends on these alone, of whose keys only
    those of augmentation touch nothing but what is trained on, and bounds of a likelihood on what
    this is of.
    """
    section = key.partition(".")[0]
    metric, _ = recipe.chosen_by
    decides = section in _YARDSTICK and key not in _ONLY_TRAINED_ON
    decides |= metric in _BOUNDS and key in _LIKELIHOOD
    if key not in set(recipe.keys()) or not decides:
        return
    what = "the held-out images" if section == "data" else f"how {metric} is measured"
    remedy = "with --data" if key == "data.source" else f"for all trials, as {key}=VALUE"
    raise InputError(
        f"{key} may not vary: it decides {what}, and trials are compared by {metric}; "
        f"give it {remedy}"
    )


def refuse_classes(recipe: Recipe, key: str) -> None:
    """InputError where trials would have to ask the data which classes there are."""
    if key in _CLASSES and key in set(recipe.keys()):
        raise InputError(
            f"{key} may not vary: classes and words are read from the data once, for all trials;"
            f" give it for all of them, as {key}=VALUE"
        )


def refuse_taken_back(recipe: Recipe, plain: Iterable[str], space: Iterable[str]) -> None:
    """InputError where a key that varies, as model.network, would set others to their defaults."""
    kinds = deciding(type(recipe))
    for kind in kinds.keys() & set(space):
        section = kind.rpartition(".")[0]
        stays = {kind, *(f"{section}.{name}" for name in kinds[kind])}
        for assignment in plain:
            key, _, text = (part.strip() for part in assignment.partition("="))
            if key.startswith(f"{section}.") and key not in stays:
                raise InputError(
                    f"{assignment}: {kind} varies, and takes the default of {key} with it; let this"
                    f" vary too, as {key}=choice({text})"
                )


def parse_range(key: str, form: str, arguments: str, text: str) -> Range:
    if form not in FORMS:
        raise InputError(f"{key}={text}: there is no {form}(); {nearest(form, FORMS)}")
    count, meaning = FORMS[form]
    given = f"{key}={text}"
    values = parse_value(key, f"[{arguments}]")
    if form == "choice":
        if not values:
            raise InputError(f"{given}: the range is empty; give choice{meaning}")
        if not all(isinstance(value, str | int | float | None) for value in values):
            raise InputError(f"{given}: give numbers, words, true, false or null")
        different = {json.dumps(number(value)): number(value) for value in values}
        return Range(form, tuple(different.values()), text)
    numbers = tuple(number(value) for value in values)
    wrong = [v for v in numbers if isinstance(v, bool) or not isinstance(v, int | float)]
    if len(numbers) != count or wrong:
        raise InputError(f"{given}: give {form}{meaning}")
    low, high = numbers
    if form.endswith("int") and not all(isinstance(value, int) for value in numbers):
        raise InputError(f"{given}: give {form}{meaning}")
    if max(abs(low), abs(high)) >= 2**63 and form.endswith("int"):
        raise InputError(f"{given}: give integers of 64 bits")
    if low >= high:
        raise InputError(f"{given}: the range is empty; give {form}{meaning}, low below high")
    if form.startswith("log") and low <= 0:
        raise InputError(f"{given}: give {form}{meaning}")
    return Range(form, numbers, text)


def number(value: Any) -> Any:
    """1e-4, which YAML 1.1 takes for a string, as a number."""
    scientific = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if scientific else value


def override_of(key: str, value: Any) -> str:
    """The override that sets a key to a value."""
    return f"{key}={json.dumps(value)}"
