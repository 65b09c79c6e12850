"""Networks that remove noise: FFDNet, which is told how much there is, and DnCNN, which is not."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.bands import Residual, through
from genimg.models.batch_norm import BatchNorm2d
from genimg.models.restoring import RestoringNetwork, receptive_field
from genimg.models.rows import Conv2d


class Block(Residual):
    """x + two convolutions of x; nearly the identity at first, so that depth costs no signal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3, padding=1)
        self.second = Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="linear")
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def added(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


class FFDNet(RestoringNetwork):
    """FFDNet (Zhang, Zuo, Zhang 2018): at half resolution, told the noise level of each pixel.

    Noisy images [N, channels, H, W] in [-1, 1] and maps of sigma / 255 -> clean images.

    The image is unshuffled by two, the maps join it, averaged to that resolution, and `blocks`
    pairs of convolutions of `width` channels run there. Unlike the paper's network this one
    predicts the noise (as DnCNN does), and has residual blocks (as EDSR does) where the paper has
    batch normalisation: an image does not depend on its batch, and training needs fewer steps.

    sigma: standard deviation of the noise on the scale of 0 to 255.
    """

    stride = 2

    def __init__(self, width: int, blocks: int, channels: int, maps: int = 1) -> None:
        super().__init__(channels, maps)
        first = Conv2d(4 * channels + maps, width, 3, padding=1)
        last = Conv2d(width, 4 * channels, 3, padding=1)
        for parameter in last.parameters():  # start as the identity
            nn.init.zeros_(parameter)
        self.body = nn.Sequential(first, *(Block(width) for _ in range(blocks)), nn.ReLU(), last)
        self.held = width // 2
        self.receptive_field = receptive_field((2, 2 * blocks + 2))

    def restore(self, known: Tensor) -> Tensor:
        noisy, maps = known[:, : self.channels], known[:, self.channels :]
        planes = F.pixel_unshuffle(noisy, 2)
        # in pairs, so that the mean of a constant map is that constant to the last bit
        rows = maps[..., ::2, :] + maps[..., 1::2, :]
        levels = (rows[..., ::2] + rows[..., 1::2]) / 4
        return noisy - F.pixel_shuffle(through(self.body, torch.cat([planes, levels], dim=1)), 2)


class DnCNN(RestoringNetwork):
    """DnCNN (Zhang, Zuo, Chen, Meng, Zhang 2017), which estimates the noise and is not told sigma.

    `depth` convolutions of `width` channels, batch-normalised but for the first and the last.
    Noisy images [N, channels, H, W] in [-1, 1] and, unlike in the paper, maps if any -> clean ones.
    """

    def __init__(self, width: int, depth: int, channels: int, maps: int = 0) -> None:
        super().__init__(channels, maps)
        layers: list[nn.Module] = [Conv2d(channels + maps, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            inner = Conv2d(width, width, 3, padding=1, bias=False)
            layers += [inner, BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, Conv2d(width, channels, 3, padding=1))
        self.held = 2 * width
        self.receptive_field = receptive_field((1, depth))  # 2 depth + 1
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # section IV.A

    def restore(self, known: Tensor) -> Tensor:
        return known[:, : self.channels] - through(self.body, known)
