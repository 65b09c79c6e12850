"""Which rows of a streamed set stand for it: balanced over the classes, from few row groups."""

from collections.abc import Callable

import numpy as np

from genimg.data.choice import balanced_order
from genimg.data.order import permutation

GROUPS = 64  # row groups that a choice comes from, at least, where there are so many
LABELLED = 512  # row groups whose labels are looked at, or twice as many as there are classes


def choose_rows(
    count: int,
    rows: np.ndarray,
    seed: int,
    *,
    classes: int,
    middles: np.ndarray,
    labels_of: Callable[[list[int]], list[np.ndarray]],
) -> np.ndarray:
    """int64 [count], ascending: numbers of the rows chosen, counted group after group.

    They come from as few row groups as make a fair sample, because all of these are read at each
    evaluation: GROUPS, or as many as it takes to find each class. Where row groups hold one class
    each (images that were never shuffled), that is up to one for each class.

    rows:      int64 [G] in each row group; together more than `count`
    classes:   how many there are; 0: rows have no labels
    middles:   float [G], between the lowest and the highest label of each row group
    labels_of: (row groups) -> int64 labels of the rows of each
    """
    starts = np.cumsum(rows) - rows
    groups = permutation(len(rows), seed)
    groups = groups[rows[groups] > 0]
    enough = max(GROUPS, int(np.searchsorted(np.cumsum(rows[groups]), 2 * count)) + 1)
    if not classes:
        few = np.sort(groups[:enough])
        candidates = spans(starts[few], rows[few])
        return np.sort(candidates[permutation(len(candidates), seed)[:count]])

    looked_at = spread(groups, middles, max(LABELLED, 2 * classes, enough))
    if rows[looked_at].sum() < count:  # row groups may differ that much in size
        looked_at = groups
    labels = labels_of(looked_at.tolist())
    every = np.concatenate(labels)
    first = balanced_order(len(every), every, seed)[:count]
    wanted = np.bincount(every[first], minlength=classes)
    few_labels: list[np.ndarray] = []
    missing = wanted.copy()
    few_groups: list[int] = []
    for group, its in zip(looked_at.tolist(), labels, strict=True):
        found = np.bincount(its, minlength=classes)
        if len(few_groups) < enough or (missing[found > 0] > 0).any():
            few_groups.append(group)
            few_labels.append(its)
            missing -= found
    few = np.array(few_groups)
    candidates = spans(starts[few], rows[few])
    return np.sort(candidates[take(wanted, np.concatenate(few_labels), seed)])


def spread(groups: np.ndarray, middles: np.ndarray, count: int) -> np.ndarray:
    """`count` of the row groups, evenly over their labels, in the order in which they came."""
    if len(groups) <= count:
        return groups
    by_label = np.argsort(middles[groups], kind="stable")
    evenly = (np.arange(count) * len(groups) + len(groups) // 2) // count
    return groups[np.sort(by_label[evenly])]


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64: the numbers start to start + length - 1 of each, one after the other."""
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + inside


def take(wanted: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Places in `labels` of as many of each class as are wanted, chosen by the seed."""
    shuffled = permutation(len(labels), seed)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels, minlength=len(wanted))
    assert (wanted <= sizes).all(), "row groups were added until every class was found"
    return by_class[spans(np.cumsum(sizes) - sizes, wanted)]
