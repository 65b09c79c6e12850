"""Augmentations that gradients pass through, of all that a discriminator sees, by keys.

So few images are not learnt by heart, and the generator does not learn to augment: it is told
through them what its own images should be (DiffAugment, Zhao et al. 2020).
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from genimg import rng

CHOICE = 1  # tag under which an augmentation's key says whether it befalls an image
Augmentation = Literal["colour", "translation", "cutout"]


def augmented(
    images: Tensor,
    keys: Tensor,
    kinds: Iterable[Augmentation],
    probability: float | Tensor = 1.0,
) -> Tensor:
    """float32 [N, C, S, S] in about [-1, 1], each changed as its key (int64 [N]) says.

    probability: with which each kind befalls an image; a scalar
    """
    for number, kind in enumerate(AUGMENTATIONS):
        if kind not in kinds:
            continue
        own = rng.fold(keys, number)
        changed = AUGMENTATIONS[kind](images.float(), own)
        if isinstance(probability, Tensor) or probability < 1:
            befalls = rng.uniform(rng.fold(own, CHOICE), (1, 1, 1)) < probability
            changed = torch.where(befalls, changed, images.float())
        images = changed
    return images


def colour(images: Tensor, keys: Tensor) -> Tensor:
    """Brighter or darker by up to 0.5, saturation times 0 to 2, contrast times 0.5 to 1.5."""
    draws = rng.uniform(keys, (3, 1, 1, 1)).to(images.dtype)
    brightness, saturation, contrast = draws.unbind(dim=1)
    images = images + (brightness - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = torch.lerp(gray, images, 2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 0.5 + contrast)


def translation(images: Tensor, keys: Tensor) -> Tensor:
    """Shifted by up to an eighth of the side each way; what comes in is 0, gray."""
    side = images.shape[-1]
    most = (side + 4) // 8
    shifts = rng.integers(keys, 2 * most + 1, (2,)) - most
    places = torch.arange(side, device=images.device)
    # one 1 in each row: products that only choose, and repeat bit for bit on GPUs too
    wanted = (places[:, None] - shifts[:, :, None, None] == places).to(images.dtype)
    down, right = wanted[:, None].unbind(dim=2)
    with torch.autocast(images.device.type, enabled=False):
        return down @ images @ right.mT


def cutout(images: Tensor, keys: Tensor) -> Tensor:
    """A square of half the side is 0, gray; of some a part lies outside."""
    side = images.shape[-1]
    half = side // 4
    centres = rng.integers(keys, side + 1, (2,))
    places = torch.arange(side, device=images.device)
    within = (places - centres[:, :, None] + half >= 0) & (places - centres[:, :, None] < half)
    down, right = within[:, None].unbind(dim=2)
    return images * ~(down[..., :, None] & right[..., None, :])


AUGMENTATIONS: dict[Augmentation, Callable[[Tensor, Tensor], Tensor]] = {
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}
"""In the order in which they befall an image."""
