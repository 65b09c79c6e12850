"""An autoencoder whose latents are codes of a codebook (VQ-VAE, van den Oord et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.ladder import Residual
from genimg.models.rows import Conv2d, in_blocks
from genimg.models.velocity import norm


class QuantisedAutoencoder(nn.Module):
    """Images [N, channels, size, size] <-> features [N, dimensions, side, side], each a code's.

    side: size / 2^halvings. codebook [codes, dimensions] is no parameter: it follows the features;
    usage [codes] is the share of them that each code has had of late, and sums [codes, dimensions]
    that share times their mean.
    """

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self, codes: int, dimensions: int, width: int, halvings: int, channels: int
    ) -> None:
        super().__init__()
        down: list[nn.Module] = [Conv2d(channels, width, 4, stride=2, padding=1), Residual(width)]
        up: list[nn.Module] = [Conv2d(dimensions, width, 3, padding=1), Residual(width)]
        for _ in range(halvings - 1):
            down += [Conv2d(width, width, 4, stride=2, padding=1), Residual(width)]
            up += [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), Residual(width)]
        down += [norm(width), nn.SiLU(), Conv2d(width, dimensions, 1)]
        last = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, norm(width), nn.SiLU(), last)
        self.register_buffer("codebook", torch.randn(codes, dimensions))
        self.register_buffer("usage", torch.full((codes,), 1 / codes))
        self.register_buffer("sums", self.codebook / codes)

    def encode(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] -> features float32 [N, dimensions, side, side]."""
        return self.encoder(images).float()

    def decode(self, features: Tensor) -> Tensor:
        """Features [N, dimensions, side, side] -> images float32 [N, C, H, W] in [-1, 1]."""
        return self.decoder(features).float().tanh()

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """int64 [N, side * side]: the code of each of features [N, dimensions, side, side]."""
        rows = features.flatten(2).transpose(1, 2)
        lengths = self.codebook.square().sum(dim=1)

        def found(rows: Tensor) -> Tensor:
            return (lengths - 2 * rows @ self.codebook.T).argmin(dim=2)

        with torch.autocast(features.device.type, enabled=False):
            return found(rows) if self.training else in_blocks(found, rows.contiguous())

    def features(self, codes: Tensor) -> Tensor:
        """Those of codes int64 [N, side * side]: float32 [N, dimensions, side, side]."""
        side = round(codes.shape[1] ** 0.5)
        return F.embedding(codes, self.codebook).transpose(1, 2).unflatten(2, (side, side))
