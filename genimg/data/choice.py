"""Which images stand for a set: chosen by a seed, and balanced over the classes."""

import numpy as np
import torch

from genimg.rng import fold, seed_from, uniform

RULE = 2  # raise it with every change of what is chosen; part of the fingerprint of labelled sets
EVALUATED = 0x6576616C  # seeds which images of a larger set are evaluated


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
