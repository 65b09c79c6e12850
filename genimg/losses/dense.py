"""Losses of networks that say something of each pixel: its class, or whether a centre is there."""

import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import UNKNOWN


def pixel_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [N, C, H, W], classes int64 [N, H, W] -> scalar, nats.

    The mean over the known pixels of an image, then over images: so it is a worker's part of the
    mean over a global batch, wherever unknown pixels are.
    """
    entropy = F.cross_entropy(logits, mask, ignore_index=UNKNOWN, reduction="none")
    known = (mask != UNKNOWN).flatten(1).sum(dim=1).clamp(min=1)
    return (entropy.flatten(1).sum(dim=1) / known).mean()


def soft_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [N, C, H, W], classes int64 [N, H, W] -> scalar: 1 - the Dice coefficient.

    (Section 3, Milletari et al. 2016, with probabilities and their sums.) The mean over the classes
    that an image shows, then over images.
    """
    known = (mask != UNKNOWN)[:, None]
    truth = F.one_hot(mask.where(known[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2) * known
    guess = logits.softmax(dim=1) * known
    shown = truth.flatten(2).sum(dim=2)
    both = (guess * truth).flatten(2).sum(dim=2)
    dice = 2 * both / (guess.flatten(2).sum(dim=2) + shown).clamp(min=1e-6)
    present = shown > 0
    return 1 - ((dice * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


def heatmap_focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Logits and truth in [0, 1] of heatmaps [N, C, H, W], 1 at centres -> scalar.

    (Eq. 1, Zhou et al. 2019, with alpha 2 and beta 4.) The sum over an image by its number of
    centres, then the mean over images.
    """
    centres = heat == 1
    guess = logits.sigmoid()
    hits = F.logsigmoid(logits) * (1 - guess).square() * centres
    misses = F.logsigmoid(-logits) * guess.square() * (1 - heat).pow(4) * ~centres
    count = centres.flatten(1).sum(dim=1).clamp(min=1)
    return -((hits + misses).flatten(1).sum(dim=1) / count).mean()
