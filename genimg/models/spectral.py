"""Spectral normalisation: convolutions that do not enlarge what they are given by much."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ITERATIONS = 15  # at the beginning


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix [out, in * height * width], has the norm 1.

    (Miyato et al. 2018.) In training each pass makes one step of the power iteration (algorithm 1)
    that finds its largest singular value; the vector where it stands is a part of the state.
    """

    u: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        nn.init.kaiming_normal_(self.weight, a=0.2)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
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
