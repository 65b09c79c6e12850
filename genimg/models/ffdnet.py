"""FFDNet (Zhang, Zuo, Zhang 2018): denoising at half resolution, told the noise level."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class FFDNet(nn.Module):
    """Noisy images [N, channels, H, W] in [-1, 1] and sigma [N] -> clean images.

    The image is unshuffled by two, a map of the noise level joins it, and `blocks` pairs of
    convolutions of `width` channels run at half resolution. Unlike the paper's network this one
    predicts the noise (as DnCNN does), and has residual blocks (as EDSR does) where the paper has
    batch normalisation: an image does not depend on its batch, and training needs fewer steps.

    sigma: standard deviation of the noise on the scale of 0 to 255. Any H and W are taken; odd
    ones are padded by repeating the border and cut again.
    """

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
