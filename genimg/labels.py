"""How much of each class is wanted, as a person writes it: `cat`, or `cat=0.5,dog=0.5`."""

import math
from collections.abc import Sequence

from genimg.errors import InputError, nearest


def shares_of(label: str, classes: Sequence[str], key: str = "label") -> tuple[float, ...]:
    """The share of each class, which add up to 1; InputError for names that are none of them.

    The name of a class is taken for that, whatever is in it; one with a comma has no part in a mix.
    key: of the option that it is the value of

    >>> shares_of("dog", ["cat", "dog", "owl"])
    (0.0, 1.0, 0.0)
    >>> shares_of("cat=3, dog=1", ["cat", "dog", "owl"])
    (0.75, 0.25, 0.0)
    """
    shares = dict.fromkeys(classes, 0.0)
    for part in (label,) if label in shares else label.split(","):
        name, number = part.strip(), "1"
        if name not in shares and "=" in name:
            name, _, number = (text.strip() for text in name.rpartition("="))
        if name not in shares:
            raise InputError(f"{key}={label!r}: unknown class {name!r}; {nearest(name, classes)}")
        shares[name] += positive(number, f"{key}={label!r}: the share of {name}")
    total = sum(shares.values())
    return tuple(share / total for share in shares.values())


def positive(text: str, what: str) -> float:
    """A number above 0, and no larger than sums of such numbers may be; or InputError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e9:
        raise InputError(f"{what} is {text!r}; give a number above 0, as in cat=0.5,dog=0.5")
    return number
