"""A discriminator of patches: convolutions, strided, with spectral normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32  # channels at full resolution, doubling at each halving
HALVINGS = 3
ITERATIONS = 15  # at the beginning


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix [out, in * height * width], has the norm 1.

    (Miyato et al. 2018.) In training each pass makes one step of the power iteration (algorithm 1)
    that finds its largest singular value; the vector where it stands is a part of the state.
    """

    u: Tensor

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(before, after, kernel, stride, padding)
        nn.init.kaiming_normal_(self.weight, a=0.2)
        self.register_buffer("u", F.normalize(torch.randn(after), dim=0))
        for _ in range(ITERATIONS):
            self.norm()

    def norm(self) -> Tensor:
        """The largest singular value, a scalar, as it is known; in float32."""
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(self.u @ matrix, dim=0)
                u = F.normalize(matrix @ v, dim=0)
                if self.training:
                    self.u.copy_(u)
            return u @ (matrix @ v)

    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(images, self.weight / self.norm(), self.bias)


class PatchDiscriminator(nn.Module):
    """Images [N, channels, H, W] in [-1, 1], of 8 pixels or more -> logits [N, 1, H / 8, W / 8].

    Each is of a patch of 40 pixels (PatchGAN, Isola et al. 2017): restorers are to learn textures,
    which are small, and what the image shows is in their input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [SpectralConv2d(channels, WIDTH, 3), nn.LeakyReLU(0.2)]
        for i in range(HALVINGS):
            before = WIDTH * 2**i
            layers += [SpectralConv2d(before, 2 * before, 4, stride=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.to_logits = SpectralConv2d(WIDTH * 2**HALVINGS, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logits(self.body(images))
