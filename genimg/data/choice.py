"""Which images stand for a set: chosen by a seed, and balanced over the classes."""

import numpy as np
import torch

from genimg.errors import InputError
from genimg.rng import fold, seed_from, uniform

RULE = 2  # raise it with every change of what is chosen; part of the fingerprint of labelled sets
EVALUATED = 0x6576616C  # seeds which images of a larger set are evaluated


def refuse_holdout(count: int, total: int, source: str = "", fewest: int = 1) -> None:
    """InputError where so many images cannot be held out of all that there are.

    fewest: that have to be, for what is trained on the others
    """
    if count < total:
        return
    where = f" in {source}" if source else ""
    told = f"data.holdout={count}: there are only {total} images{where}"
    if total <= fewest:
        raise InputError(f"{told}; give more than {fewest}, of which {fewest} are held out")
    raise InputError(f"{told}; hold out fewer, as data.holdout={fitting_holdout(total, fewest)}")


def fitting_holdout(total: int, fewest: int = 1) -> int:
    """A tenth of all images, but not below the fewest that are worth it."""
    return max(fewest, total // 10)


def balanced_order(count: int, labels: np.ndarray | None, seed: int) -> np.ndarray:
    """A permutation of 0 to count - 1 (int64), any beginning of which has its share of each class.

    labels: int64 [count], or None where there are no classes

    Systematic sampling, class by class: the n images of a class, shuffled, are spread evenly over
    the order from a random start, so each beginning holds a class's part of it to within an image
    or two. A pure function of labels and seed.
    """
    numbers = fold(seed, torch.arange(count)).numpy()
    if labels is None:
        return np.argsort(numbers, kind="stable")
    by_class = np.lexsort((numbers, labels))  # shuffled within each class
    sizes = np.bincount(labels)
    inside = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    starts = uniform(fold(seed_from(seed, RULE), torch.arange(len(sizes)))).double().numpy()
    places = (inside + np.repeat(starts, sizes)) / np.repeat(sizes, sizes)
    return by_class[np.argsort(places, kind="stable")]


def balanced_choice(
    count: int, total: int, labels: np.ndarray | None, seed: int = EVALUATED
) -> np.ndarray:
    """int64 indices, ascending, of `count` among `total` images; all where there are no more."""
    if count >= total:
        return np.arange(total)
    return np.sort(balanced_order(total, labels, seed)[:count])
