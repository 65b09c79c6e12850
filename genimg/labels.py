"""Names of classes, and how much of each is wanted: `cat`, or `cat=0.5,dog=0.5`."""

import math
import unicodedata
from collections.abc import Sequence

from genimg.errors import InputError, nearest

MOST_CLASSES = 10_000  # without names: of more, labels are more likely numbers of something else


def shares_of(label: str, classes: Sequence[str], key: str = "label") -> tuple[float, ...]:
    """The share of each class, which add up to 1; InputError for names that are none of them.

    The name of a class is taken for that, whatever is in it; one with a comma has no part in a mix.
    key: of the option that it is the value of

    >>> shares_of("dog", ["cat", "dog", "owl"])
    (0.0, 1.0, 0.0)
    >>> shares_of("cat=3, dog=1", ["cat", "dog", "owl"])
    (0.75, 0.25, 0.0)
    """
    places = {plain(name): place for place, name in reversed(list(enumerate(classes)))}
    shares = [0.0] * len(classes)
    numbered = set()
    for part in (label,) if plain(label) in places else label.split(","):
        name, number = plain(part), "1"
        numbered.add(name not in places and "=" in name)
        if name not in places and "=" in name:
            name, _, number = (text.strip() for text in name.rpartition("="))
        if name not in places:
            raise InputError(f"{key}={label!r}: unknown class {name!r}; {nearest(name, classes)}")
        shares[places[name]] += positive(number, f"{key}={label!r}: the share of {name}")
    if len(numbered) > 1:
        raise InputError(f"{key}={label!r}: give every class its share, or none")
    total = sum(shares)
    return tuple(share / total for share in shares)


def plain(name: str) -> str:
    """A name without blanks around it, in the form of Unicode that is typed."""
    return unicodedata.normalize("NFC", name).strip()


def positive(text: str, what: str) -> float:
    """A number above 0, and no larger than sums of such numbers may be; or InputError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e9:
        raise InputError(f"{what} is {text!r}; give a number above 0, as in cat=0.5,dog=0.5")
    return number


def number_names(highest: int, what: str) -> tuple[str, ...]:
    """'0', '1', … for classes that have no names, up to the highest that there is; -1: none.

    InputError, which begins with what they are of, where they are too many.
    """
    if highest >= MOST_CLASSES:
        raise InputError(
            f"{what} has label {highest}: labels without names count classes from 0, of which there"
            f" may be {MOST_CLASSES:,}; number the classes that there are, or leave the labels out"
        )
    return tuple(str(number) for number in range(highest + 1))
