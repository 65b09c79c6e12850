"""Frozen sections of keys: checked, overridden, explained; the one translator of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Self, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from genimg.errors import InputError, nearest


class Section(BaseModel):
    """A group of keys. Unknown keys are refused, values are checked, nothing changes later."""

    # JSON has no infinities, so a section with one could not be read again
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def validated(cls, tree: Mapping[str, Any]) -> Self:
        """The section of a tree of plain values, or InputError naming the first wrong key."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise InputError(str(problem(error, cls))) from None

    @classmethod
    def keys(cls) -> dict[str, FieldInfo]:
        """Every dotted key with its field: default, limits and description."""
        return dict(walk(cls))

    def override(self, assignments: Iterable[str]) -> Self:
        """A copy with dotted `key=value` overrides (values in YAML).

        A key that decides what else its section has, as model.network, comes before the others
        and takes their defaults with it, but for those that its sections have in common. Raises
        InputError with key, value, what is allowed, and the nearest known key.
        """
        given = []
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise InputError(f"{assignment!r} is not of the form key=value")
            given.append((key.strip(), parse_value(key, text)))
        known, kinds = self.keys(), deciding(type(self))
        tree = self.model_dump()
        for key, value in sorted(given, key=lambda pair: pair[0] not in kinds):
            if key in kinds and flat(tree)[key] != value:
                section, leaf = key.rsplit(".", 1)
                stays = {name: tree[section][name] for name in kinds[key]}
                set_key(tree, section, stays | {leaf: value}, [section])
            set_key(tree, key, value, known)
        return self.validated(tree)


@dataclass(frozen=True)
class Problem:
    """What pydantic found wrong first, in words of ours; as text, in one line."""

    key: str  # dotted; empty where it concerns several keys, which the reason names
    reason: str  # what is allowed, or what to do instead
    value: Any = None
    kind: Literal["unknown", "missing", "value", "several"] = "value"

    def __str__(self) -> str:
        match self.kind:
            case "unknown":
                return f"unknown key {self.key!r}; {self.reason}"
            case "missing":
                return f"{self.key} is missing; {self.reason}"
            case "several":
                return f"{self.key}: {self.reason}" if self.key else self.reason
            case "value":
                return f"{self.key}={self.value!r}: {self.reason}"


def problem(error: ValidationError, section: type[BaseModel]) -> Problem:
    """The first of pydantic's errors about a section."""
    first = error.errors()[0]
    value, place = first["input"], first["loc"]
    if place[-1:] == ("[key]",):  # pydantic's word for a name in a mapping that is none
        path, _ = follow(section, place[:-2])
        reason = f"{value!r} names nothing; give a text or a number in its place"
        return Problem(".".join(map(str, path)), reason, kind="several")
    path, sections = follow(section, place)
    key = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        known = [name for each in sections for name in each.model_fields]
        return Problem(key, nearest(str(path[-1]), known), kind="unknown")
    if first["type"] == "union_tag_invalid":
        known = list(tagged(sections))
        kind, tag = first["ctx"]["discriminator"].strip("'"), first["ctx"]["tag"]
        return Problem(f"{key}.{kind}", nearest(tag, known), tag)
    if first["type"] == "union_tag_not_found":
        kind = first["ctx"]["discriminator"].strip("'")
        return Problem(
            f"{key}.{kind}", f"give one of {', '.join(tagged(sections))}", kind="missing"
        )
    if first["type"] == "missing":
        return Problem(key, "give it", kind="missing")
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        one = yaml.safe_dump(value, default_flow_style=True) if isinstance(value, dict) else value
        reason = f"give a list, as [{str(one).strip()}]"
    if isinstance(value, dict | BaseModel):
        return Problem(key, reason, kind="several")
    if first["type"] == "string_pattern_mismatch":  # no person wants to read the pattern
        fields = (each.model_fields.get(str(path[-1])) for each in sections)
        examples = [text for field in fields if field for text in field.examples or ()]
        reason = f"give it as in {examples[0]}" if examples else reason
    return Problem(key, reason[0].lower() + reason[1:], value)


def follow(
    section: type[BaseModel], path: Iterable[int | str]
) -> tuple[list[int | str], list[type[BaseModel]]]:
    """(a path of pydantic's as keys, the sections that it leads to, or whose last key is unknown).

    Through lists and `Section | None`. Of sections that a key tells apart pydantic names the one
    as a part of the path, which is no key.
    """
    keys: list[int | str] = []
    sections = [section]
    for part in path:
        if isinstance(part, str) and len(sections) > 1 and part in (kinds := tagged(sections)):
            sections = [kinds[part]]
            continue
        keys.append(part)
        fields = {name: field for each in sections for name, field in each.model_fields.items()}
        if part in fields:
            sections = sections_in(fields[str(part)].annotation) or sections
    return keys, sections


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Those that a key may hold, in lists too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in get_args(annotation) for each in sections_in(part)]


def tagged(sections: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Sections by the one value of the key that tells them apart."""
    return {
        str(value): section
        for section in sections
        for field in section.model_fields.values()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
        for value in get_args(field.annotation)
    }


def deciding(section: type[BaseModel]) -> dict[str, frozenset[str]]:
    """Dotted keys that decide which keys their section has, as model.network; with each, names of
    those that all its sections have of one that they come from."""
    return {
        f"{name}.{field.discriminator}": inherited(sections_in(field.annotation))
        for name, field in section.model_fields.items()
        if field.discriminator
    }


def inherited(sections: list[type[BaseModel]]) -> frozenset[str]:
    """Keys of the nearest class that all of some sections are of."""
    first, *others = sections
    common = (each for each in first.__mro__ if all(issubclass(other, each) for other in others))
    return frozenset(getattr(next(common), "model_fields", ()))


def walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted keys of a section's leaves, in the order in which they are declared."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from walk(field.annotation, f"{prefix}{name}.")
        elif field.discriminator:
            yield from told_apart(field, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def told_apart(field: FieldInfo, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Keys of sections of which a key may hold one: those of the default first, each once."""
    sections = sections_in(field.annotation)
    sections.sort(key=lambda each: not isinstance(field.default, each))
    values = tuple(tagged(sections))
    kind = FieldInfo(
        annotation=cast(Any, Literal[values]),
        default=values[0],
        description="decides which of the other keys there are",
    )
    seen = {f"{prefix}{field.discriminator}": kind}
    for section in sections:
        for key, inner in walk(section, prefix):
            seen.setdefault(key, inner)
    yield from seen.items()


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested tree of values as {dotted key: value}."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return out


def parse_value(key: str, text: str) -> Any:
    """The YAML value of `text`; also reads 1e-4, which YAML 1.1 takes for a string.

    What stands in quotes stays a string: '2012'.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{key}={text!r}: not a YAML value") from None
    if isinstance(value, str) and value == text.strip():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def of_its_kind(kinds: Mapping[str, type[Section]]) -> Callable[[Any], Any]:
    """Reads a tree of keys as the section of its `kind`, so that errors are about its own keys.

    A kind's name alone is one with all its keys as they come.
    """

    def read(value: Any) -> Any:
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, Mapping):
            return value
        if "kind" not in value:
            raise InputError(f"kind is missing; known: {', '.join(sorted(kinds))}")
        kind = str(value["kind"])
        if kind not in kinds:
            raise InputError(f"kind={kind!r}: {nearest(kind, kinds)}")
        return kinds[kind].validated(value)

    return read


def set_key(tree: dict[str, Any], key: str, value: Any, known: Iterable[str]) -> None:
    """Set a dotted key of a tree of values, or raise InputError with the nearest known key."""
    known = list(known)
    if key == "recipe" or key not in known:
        raise InputError(f"unknown key {key!r}; {nearest(key, set(known) - {'recipe'})}")
    *sections, leaf = key.split(".")
    for name in sections:
        tree = tree[name]
    tree[leaf] = value


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: 'int, at least 1', 'resize | pad | crop'."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        text = " | ".join(str(value) for value in get_args(annotation))
    elif get_origin(annotation) is tuple:
        item = FieldInfo.from_annotation(get_args(annotation)[0])
        return f"list of {allowed(item)}"
    elif get_origin(annotation) in (Union, UnionType):
        parts = (FieldInfo.from_annotation(each) for each in get_args(annotation))
        text = " | ".join(map(allowed, parts))
    elif annotation is None or annotation is type(None):
        text = "none"
    else:
        kind = getattr(annotation, "model_fields", {}).get("kind")
        text = kind.default if kind else getattr(annotation, "__name__", str(annotation))
    limits = {
        "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}",
        "multiple_of": "a multiple of {}",
    }  # fmt: skip
    for meta in field.metadata:
        for name, words in limits.items():
            if getattr(meta, name, None) is not None:
                text += ", " + words.format(getattr(meta, name))
    return text
