"""A mixture of Gaussians that follows the latents of an autoencoder, to draw latents of."""

import math

import torch
from torch import Tensor, nn

RIDGE = 1e-3  # variance that each Gaussian has at least, in every direction


class Mixture(nn.Module):
    """Latents [N, dimensions] <-> standard normals [N, 1 + dimensions].

    The first normal decides which Gaussian, by its cumulative share, and the others where in it.
    The buffers are the mean sufficient statistics of the Gaussians, [K], [K, D] and [K, D, D].
    """

    shares: Tensor
    sums: Tensor
    squares: Tensor

    def __init__(self, gaussians: int, dimensions: int) -> None:
        super().__init__()
        means = torch.randn(gaussians, dimensions)
        spread = torch.eye(dimensions) + means[:, :, None] * means[:, None]
        self.register_buffer("shares", torch.full((gaussians,), 1 / gaussians))
        self.register_buffer("sums", means / gaussians)
        self.register_buffer("squares", spread / gaussians)

    def forward(self, normals: Tensor) -> Tensor:
        upper = self.shares.double().cumsum(dim=0)
        level = 0.5 * torch.erfc(normals[:, :1].double() / -math.sqrt(2)) * upper[-1]
        chosen = (upper <= level).sum(dim=1).clamp_max(len(upper) - 1)
        means, factors = self.gaussians()
        return means[chosen] + (factors[chosen] * normals[:, None, 1:]).sum(dim=2)

    def inverse(self, latents: Tensor) -> Tensor:
        """The normals of latents, each of its likeliest Gaussian and in the midst of its share."""
        chosen = self.responsibilities(latents).argmax(dim=1)
        means, factors = self.gaussians()
        rest = torch.linalg.solve_triangular(
            factors[chosen], (latents - means[chosen])[..., None], upper=False
        )[..., 0]
        upper = self.shares.double().cumsum(dim=0)
        level = (upper[chosen] - 0.5 * self.shares[chosen].double()) / upper[-1]
        first = math.sqrt(2) * torch.erfinv(2 * level - 1)
        return torch.cat([first[:, None].to(rest.dtype), rest], dim=1)

    def gaussians(self) -> tuple[Tensor, Tensor]:
        """Means [K, D], and lower triangular factors of the covariances [K, D, D]."""
        shares = self.shares.clamp_min(1e-8)[:, None]
        means = self.sums / shares
        spread = self.squares / shares[..., None] - means[:, :, None] * means[:, None]
        ridge = RIDGE * torch.eye(means.shape[1], device=means.device)
        factors, _ = torch.linalg.cholesky_ex(spread + ridge)  # asks nothing of a GPU
        return means, factors

    def responsibilities(self, latents: Tensor) -> Tensor:
        """float32 [N, K]: the probability of each Gaussian, of latents [N, D]."""
        means, factors = self.gaussians()
        shifts = (latents[:, None] - means).transpose(0, 1).mT  # [K, D, N]
        inner = torch.linalg.solve_triangular(factors, shifts, upper=False).square().sum(dim=1)
        volumes = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        return (self.shares.log() - volumes - 0.5 * inner.T).softmax(dim=1)

    def statistics(self, latents: Tensor) -> Tensor:
        """Those of latents [N, D], one after the other in a vector: what `follow` takes."""
        parts = self.responsibilities(latents).T / len(latents)  # [K, N]
        squares = torch.einsum("kn,ni,nj->kij", parts, latents, latents)
        return torch.cat([parts.sum(dim=1), (parts @ latents).flatten(), squares.flatten()])

    def follow(self, statistics: Tensor, rate: float) -> None:
        """Stepwise expectation maximisation (section 4, Cappe & Moulines 2009)."""
        buffers = (self.shares, self.sums, self.squares)
        parts = statistics.split([each.numel() for each in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.lerp_(part.view_as(buffer), rate)
