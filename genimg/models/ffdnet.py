"""FFDNet (Zhang, Zuo, Zhang 2018): denoising at half resolution, told the noise level."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FFDNet(nn.Module):
    """Noisy images [N, channels, H, W] in [-1, 1] and sigma [N] -> clean images.

    The image is unshuffled by two, a map of the noise level joins it, and `depth` convolutions of
    `width` channels run at half resolution. Unlike the paper's network this one predicts the
    noise (as DnCNN does) and has no batch normalisation: both make short trainings better.

    sigma: standard deviation of the noise on the scale of 0 to 255. Any H and W are taken; odd
    ones are padded by repeating the border and cut again.
    """

    def __init__(self, width: int, depth: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4 * channels + 1, width, 3, padding=1)]
        for _ in range(depth - 2):
            layers += [nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)]
        last = nn.Conv2d(width, 4 * channels, 3, padding=1)
        self.body = nn.Sequential(*layers, nn.ReLU(inplace=True), last)
        self.receptive_field = 2 * (2 * depth + 1)  # pixels of the full image
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for parameter in last.parameters():  # start as the identity
            nn.init.zeros_(parameter)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        height, width = noisy.shape[-2:]
        padded = F.pad(noisy, (0, width % 2, 0, height % 2), mode="replicate")
        planes = F.pixel_unshuffle(padded, 2)
        level = (
            (sigma / 255).to(planes.dtype)[:, None, None, None].expand(-1, 1, *planes.shape[-2:])
        )
        noise = self.body(torch.cat([planes, level], dim=1))
        return (padded - F.pixel_shuffle(noise, 2))[..., :height, :width]
