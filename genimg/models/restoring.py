"""What networks that restore images share: their call, sides of any length, how far they see."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genimg.tiles import extended


class RestoringNetwork(nn.Module, ABC):
    """(images [N, C, H, W] in [-1, 1], maps [N, K, H, W]) -> images [N, C, scale * H, scale * W].

    The maps say what is known of the damage at each pixel: sigma / 255 everywhere, or 1 where a
    pixel is missing. A blind network has none: K = 0, an empty tensor or nothing. Any H, W >= 1
    are taken: they are padded to the stride by mirroring the border, and cut again.

    No pixel depends on where it lies, but for its place within the stride, nor on anything further
    than `margin` away: tiles (genimg.tiles) give what the whole gives.

    receptive_field: pixels of the input that a pixel of the result depends on, across
    stride: tiles begin at multiples of it
    scale: pixels of the result for one of the input, along each side
    held: features that are in memory at once for each pixel of a large image, about; 0: untold
    channels, maps: C and K
    """

    receptive_field: int
    stride: int = 1
    scale: int = 1
    held: int = 0

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.channels = channels
        self.maps = maps

    @property
    def margin(self) -> int:
        """Half of the receptive field, and a multiple of the stride."""
        return -(-self.receptive_field // (2 * self.stride)) * self.stride

    @property
    def bytes_held(self) -> int:
        """For each pixel of a large image: features in the precision of the weights, and images."""
        if not self.held:
            return 0
        weights = [module.weight for module in self.modules() if isinstance(module, nn.Conv2d)]
        size = min((each.element_size() for each in weights), default=4)
        return size * self.held + 4 * (self.channels + self.maps + self.channels * self.scale**2)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        assert images.shape[1] == self.channels, f"{images.shape[1]} channels, not {self.channels}"
        given = 0 if maps is None else maps.shape[1]
        assert given == self.maps, f"{given} condition maps, not {self.maps}"
        height, width = images.shape[-2:]
        # under no name, so that it is given away as soon as the network has seen it
        restored = self.restore(
            padded(images if maps is None or not given else beside(images, maps), self.stride)
        )
        return restored[..., : self.scale * height, : self.scale * width]

    @abstractmethod
    def restore(self, known: Tensor) -> Tensor:
        """Images and their maps [N, C + K, H, W], H and W multiples of the stride -> images."""


def beside(images: Tensor, maps: Tensor) -> Tensor:
    """[N, C + K, H, W] of [N, C, H, W] and [N, K, H, W], channels last however those lie."""
    both = [each.permute(0, 2, 3, 1) for each in (images, maps)]
    return torch.cat(both, dim=3).permute(0, 3, 1, 2)


def padded(images: Tensor, stride: int) -> Tensor:
    """Images whose sides are multiples of the stride: mirrored at the last row and column."""
    height, width = images.shape[-2:]
    return extended(images, 0, -height % stride, -width % stride)


def constant_maps(levels: Tensor, images: Tensor) -> Tensor:
    """Maps [N, K, H, W] for images [N, C, H, W], each the same everywhere: levels [N, K]."""
    height, width = images.shape[-2:]
    return levels.to(images.dtype)[:, :, None, None].expand(-1, -1, height, width)


def receptive_field(*stages: tuple[int, int], scale: int = 1) -> int:
    """Pixels of the input, across, that a pixel of the output depends on: of all places the most.

    stages: (cell, reach) from input to output: features on a grid whose cells cover `cell` pixels
        of the *output* along each side, of which each sees `reach` more to either side; k
        convolutions 3x3 reach k. Cells of neighbouring stages divide one another.
    scale: pixels of the output for one of the input
    """
    widest = 0
    for place in range(max(cell for cell, _ in (*stages, (scale, 0)))):
        start, stop = place, place + 1
        for cell, reach in ((scale, 0), *stages)[::-1]:  # from the output back
            start = (start // cell - reach) * cell
            stop = (-(-stop // cell) + reach) * cell
        widest = max(widest, (stop - start) // scale)
    return widest
