"""A recurrent variational autoencoder of frames: what follows is drawn, by a prior that has learnt
what is to be expected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.predicting import Beliefs, Predictor
from genimg.models.recurrent import ConvLSTM, blank, shown, through
from genimg.models.rows import Conv2d

MOST = 8.0  # of a log variance, either way


class Belief(nn.Module):
    """A layer of memory that sees a frame's features, and what it expects of latents."""

    def __init__(self, width: int, planes: int, kernel: int) -> None:
        super().__init__()
        self.layer = ConvLSTM(width, width, kernel)
        self.both = Conv2d(width, 2 * planes, 1)

    def forward(
        self, features: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Mean and log variance [N, planes, H, W], float32, and what is remembered."""
        h, c, _ = self.layer(features, h, c, c)
        mean, log_variance = self.both(h).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-MOST, MOST), (h, c)


class FrameVAE(Predictor):
    """Layers of memory that see a frame, and latents of the next one, and say it.

    As SVG with a learned prior (Denton & Fergus 2018, section 3), but that latents are `planes`, of
    patches, and not a vector. The prior sees the frames before the next one, the posterior that one
    too; while frames are given, what follows is known and the posterior's mean is taken.

    size: of frames, a multiple of `patch`
    """

    def __init__(
        self,
        given: int,
        predicted: int,
        channels: int,
        size: int,
        width: int,
        layers: int,
        kernel: int,
        patch: int,
        planes: int,
    ) -> None:
        super().__init__(given, predicted)
        self.width, self.patch = width, patch
        self.shape = planes, size // patch, size // patch
        self.latents = planes * (size // patch) ** 2
        pixels = channels * patch**2
        self.encoder = nn.Sequential(
            Conv2d(pixels, width, 3, padding=1),
            nn.SiLU(),
            Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.prior = Belief(width, planes, kernel)
        self.posterior = Belief(width, planes, kernel)
        self.cells = nn.ModuleList(
            ConvLSTM(width if layer else width + planes, width, kernel) for layer in range(layers)
        )
        self.head = Conv2d(width, pixels, 1)

    def forward(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None, "what follows is drawn by it"
        made, _ = self.rolled(frames, None, noise.unflatten(1, (self.predicted, -1)))
        return made[:, -self.predicted :]

    def learn(self, frames: Tensor, told: Tensor, noise: Tensor | None) -> tuple[Tensor, Beliefs]:
        """All frames but the first are predicted, those that are given as well."""
        assert noise is not None, "latents are drawn by it"
        return self.rolled(frames, told, noise)

    def rolled(self, frames: Tensor, told: Tensor | None, noise: Tensor) -> tuple[Tensor, Beliefs]:
        """[N, given + predicted - 1, C, H, W], what it says of every frame but the first, and its
        beliefs of all whose frame is known.

        frames: the given ones, or with `told` all
        noise: [N, T, latents], of the last T of them
        """
        patches = F.pixel_unshuffle(frames, self.patch)
        noise = noise.unflatten(2, self.shape)
        memory = blank(patches[:, 0], self.width)
        states = [(memory, memory)] * len(self.cells)
        before = after = (memory, memory)
        made: list[Tensor] = []
        beliefs: list[tuple[Tensor, ...]] = []
        steps = self.given + self.predicted - 1
        for step in range(steps):
            x = self.encoder(shown(patches, made, step, self.given, told))
            expected, doubt, before = self.prior(x, *before)
            if step + 1 < patches.shape[1]:
                seen = patches[:, step + 1].contiguous(memory_format=torch.channels_last)
                mean, log_variance, after = self.posterior(self.encoder(seen), *after)
                beliefs.append((mean, log_variance, expected, doubt))
                latent = mean
                if told is not None:
                    latent = drawn(mean, log_variance, noise[:, step - steps])
            else:
                latent = drawn(expected, doubt, noise[:, step - steps])
            x, _ = through(self.cells, states, torch.cat([x, latent], dim=1), memory)
            made.append(self.head(x))
        stacked = tuple(torch.stack(each, dim=1) for each in zip(*beliefs, strict=True))
        return F.pixel_shuffle(torch.stack(made, dim=1), self.patch), stacked


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    return mean + (0.5 * log_variance).exp() * noise
