"""Networks that remove noise: FFDNet, which is told how much there is, and DnCNN, which is not."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.rows import Conv2d


class Residual(nn.Module):
    """x + two convolutions of x; nearly the identity at first, so that depth costs no signal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3, padding=1)
        self.second = Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="linear")
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class DenoisingNetwork(nn.Module):
    """(noisy images [N, C, H, W] in [-1, 1], sigma [N] on the scale of 0 to 255) -> clean ones.

    receptive_field: pixels of the image that a pixel of the result depends on, across
    stride: tiles begin at multiples of it
    """

    receptive_field: int
    stride: int = 1


class FFDNet(DenoisingNetwork):
    """FFDNet (Zhang, Zuo, Zhang 2018): at half resolution, told the noise level.

    Noisy images [N, channels, H, W] in [-1, 1] and sigma [N] -> clean images.

    The image is unshuffled by two, a map of the noise level joins it, and `blocks` pairs of
    convolutions of `width` channels run at half resolution. Unlike the paper's network this one
    predicts the noise (as DnCNN does), and has residual blocks (as EDSR does) where the paper has
    batch normalisation: an image does not depend on its batch, and training needs fewer steps.

    sigma: standard deviation of the noise on the scale of 0 to 255. Any H and W are taken; odd
    ones are padded by repeating the border and cut again.
    """

    stride = 2

    def __init__(self, width: int, blocks: int, channels: int) -> None:
        super().__init__()
        first = Conv2d(4 * channels + 1, width, 3, padding=1)
        last = Conv2d(width, 4 * channels, 3, padding=1)
        for parameter in last.parameters():  # start as the identity
            nn.init.zeros_(parameter)
        self.body = nn.Sequential(first, *(Residual(width) for _ in range(blocks)), nn.ReLU(), last)
        self.receptive_field = 2 * (2 * (2 * blocks + 2) + 1)  # pixels of the full image

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        height, width = noisy.shape[-2:]
        padded = F.pad(noisy, (0, width % 2, 0, height % 2), mode="replicate")
        planes = F.pixel_unshuffle(padded, 2)
        level = (
            (sigma / 255).to(planes.dtype)[:, None, None, None].expand(-1, 1, *planes.shape[-2:])
        )
        noise = self.body(torch.cat([planes, level], dim=1))
        return (padded - F.pixel_shuffle(noise, 2))[..., :height, :width]


class DnCNN(DenoisingNetwork):
    """DnCNN (Zhang, Zuo, Chen, Meng, Zhang 2017), which estimates the noise and is not told sigma.

    `depth` convolutions of `width` channels, batch-normalised but for the first and the last.
    Noisy images [N, channels, H, W] in [-1, 1] and sigma [N] -> clean images.
    """

    stride = 1

    def __init__(self, width: int, depth: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            inner = Conv2d(width, width, 3, padding=1, bias=False)
            layers += [inner, BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, Conv2d(width, channels, 3, padding=1))
        self.receptive_field = 2 * depth + 1
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # section IV.A

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        return noisy - self.body(noisy)
