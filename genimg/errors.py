"""The one error a person can cause: it names what was given, why not, and what to do instead."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something a person gave cannot be used. Commands print it as one line and exit with 2."""


def nearest(given: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or all of them.

    >>> nearest("dcgna", ["dcgan", "ffdnet"])
    "did you mean 'dcgan'?"
    >>> nearest("x", ["dcgan", "ffdnet"])
    'known: dcgan, ffdnet'
    """
    known = sorted(known)
    if close := closest(given, known):
        return f"did you mean {close!r}?"
    return f"known: {', '.join(known)}" if known else "there are none yet"


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(get_close_matches(given, sorted(known), n=1, cutoff=0.6)), None)


def listed(words: Iterable[str]) -> str:
    """One or more in a row, as they are said.

    >>> listed(["image", "mask", "label"])
    'image, mask and label'
    """
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last
