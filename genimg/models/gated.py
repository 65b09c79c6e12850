"""A U-Net of gated convolutions, which learn where what they see may be relied on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.bands import Residual, through
from genimg.models.restoring import RestoringNetwork, receptive_field
from genimg.models.rows import Conv2d


class Gated(nn.Module):
    """elu(features) * sigmoid(gates), both of one convolution [N, before, H, W] -> [N, after, ...].

    (Yu, Lin, Yang, Shen, Lu, Huang 2019, "Free-Form Image Inpainting with Gated Convolution", eq.
    2.) A gate of each pixel and channel takes the place of a rule by which what a mask marks is
    passed over, as partial convolutions have one.
    """

    def __init__(self, before: int, after: int, kernel: int = 3) -> None:
        """kernel: 3, or 2 to halve both sides."""
        super().__init__()
        stride, padding = (2, 0) if kernel == 2 else (1, 1)
        self.both = Conv2d(before, 2 * after, kernel, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        features, gates = self.both(x).chunk(2, dim=1)
        return F.elu(features) * gates.sigmoid()


class Block(Residual):
    """x + convolution(gated(x)); nearly the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gated = Gated(width, width)
        self.last = Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.last.weight.mul_(0.2)

    def added(self, x: Tensor) -> Tensor:
        return self.last(self.gated(x))


class GatedUNet(RestoringNetwork):
    """Images [N, channels, H, W] in [-1, 1] and condition maps [N, maps, H, W], concatenated at the
    input, through `depth` halvings and back, each with what the way down saw added.

    `blocks` residual blocks at each resolution, down and up, and at the bottom; channels double at
    each halving, from `width`. It predicts what to add to the image, at first nothing. The paper's
    network fills in two stages; here one goes by the first guess of genimg.models.filling.
    """

    def __init__(self, width: int, depth: int, blocks: int, channels: int, maps: int) -> None:
        super().__init__(channels, maps)
        widths = [width * 2**level for level in range(depth + 1)]

        def several(level: int) -> list[Block]:
            return [Block(widths[level]) for _ in range(blocks)]

        self.head = Gated(channels + maps, width)
        self.down = nn.ModuleList(nn.Sequential(*several(level)) for level in range(depth))
        self.halve = nn.ModuleList(Gated(w, 2 * w, kernel=2) for w in widths[:-1])
        self.bottom = nn.Sequential(*several(depth))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.up = nn.ModuleList(nn.Sequential(*several(level)) for level in range(depth))
        self.tail = Conv2d(width, channels, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        self.stride = 2**depth
        self.held = 3 * width
        levels = [(2**level, 2 * blocks) for level in range(depth)]
        self.receptive_field = receptive_field(
            (1, 1), *levels, (self.stride, 2 * blocks), *levels[::-1], (1, 1)
        )

    def restore(self, known: Tensor) -> Tensor:
        features = self.head(known)
        seen: list[Tensor] = []
        for down, halve in zip(self.down, self.halve, strict=True):
            seen.append(through(down, features, ours=True))
            features = halve(seen[-1])
        features = through(self.bottom, features, ours=True)
        for rise, up in zip(reversed(self.rise), reversed(self.up), strict=True):
            features = through(up, rise(features).add_(seen.pop()), ours=True)
        return known[:, : self.channels] + self.tail(features)
