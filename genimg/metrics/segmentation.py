"""How masks are judged: by the pixels that were taken for another class."""

import torch
from torch import Tensor

from genimg.contracts import UNKNOWN


def confusion(guess: Tensor, truth: Tensor, classes: int) -> Tensor:
    """int64 [classes, classes]: pixels of the class of the row that were taken for the column's.

    guess, truth: classes of pixels, integers of any equal shape; where the truth is UNKNOWN
    nothing counts.
    """
    known = truth != UNKNOWN
    pairs = truth[known].long() * classes + guess[known].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """float64 [classes]: true positives by all pixels that are of a class or were taken for it.

    (Section 4.2, Everingham et al. 2010.) NaN for a class that is neither there nor taken for.
    """
    both = confusion.diagonal().double()
    either = confusion.sum(dim=0) + confusion.sum(dim=1) - both
    return both / either


def mean_iou(confusion: Tensor) -> float:
    """The mean over the classes that are there, or were taken for it."""
    return intersection_over_union(confusion).nanmean().item()
