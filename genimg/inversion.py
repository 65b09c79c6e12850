"""From images to latents: a search by gradients, where a model has no encoder."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.drawn import PLAIN, Manner
from genimg.inference import latents
from genimg.metrics.fidelity import PEAK, squared_error
from genimg.pixels import to_bytes_range
from genimg.plans import Fitted
from genimg.results import Latents

STARTS, ITERATIONS = 8, 200
RATE = 0.1  # of Adam; falls to 0 along a cosine
LEVELS = 3  # of the pyramid on which images are compared: a start may be off by some pixels
BEYOND = 2.0  # by which latents may be longer than the root of their number: few seeds' are


def search(
    draw: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, iterations: int
) -> Tensor:
    """Latents float32 [N, D] whose images draw(latents) come near to images [N, C, H, W].

    From `start`, each row by itself, by Adam (Kingma & Ba 2015) on the mean square differences of
    the levels of a pyramid (projection, as of Abdal et al. 2019, Image2StyleGAN). They stay within
    the ball in which latents of seeds are.
    """
    radius = math.sqrt(start.shape[1]) + BEYOND
    with torch.enable_grad():
        found = start.clone().requires_grad_()
        adam = torch.optim.Adam([found], lr=RATE)
        for iteration in range(iterations):
            for group in adam.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
            (found.grad,) = torch.autograd.grad(apart(draw(found), images), found)
            adam.step()
            with torch.no_grad():
                found *= (radius / found.norm(dim=1, keepdim=True)).clamp_max(1)
    return found.detach()


def apart(made: Tensor, images: Tensor) -> Tensor:
    """The sum over rows and levels of mean square differences, images [N, C, H, W] twice."""
    total = made.new_zeros(())
    for level in range(LEVELS):
        a, b = (F.avg_pool2d(each, 2**level) if level else each for each in (made, images))
        total = total + (a - b).square().flatten(1).mean(dim=1).sum()
    return total


class Inverted(Fitted):
    """An image, brought to the model's size, and the latents from which it comes nearest to it.

    starts: seeds with whose latents a search begins, 0 and on; the best of what is found counts
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        starts: int | None = None,
        iterations: int | None = None,
        manner: Manner = PLAIN,
    ) -> None:
        super().__init__(ability, image, self._best)
        self._searches = "latent" in ability.takes
        self._iterations, self._manner = iterations or ITERATIONS, manner
        self._row = self._fitted(image)
        self.count = (starts or STARTS) if self._searches else 1
        self.key = id(self) if ability.alone else (manner.steps, manner.guidance)

    def rows(self, start: int, stop: int) -> Rows:
        ability, count = self._ability, stop - start
        rows: Rows = {"image": self._row.expand(count, -1, -1, -1), **self._manner.columns(count)}
        if self._searches:
            rows["latent"] = latents(torch.arange(start, stop), ability.latent)
            rows["iterations"] = torch.full((count,), self._iterations)
        if ability.classes:
            rows["classes"] = self._manner.classes(ability, count)
        return rows

    def _best(self, made: Rows) -> Latents:
        bytes_ = to_bytes_range(made["image"])
        errors = squared_error(bytes_, to_bytes_range(self._row).expand_as(bytes_))
        best = int(errors.argmin())
        least = max(float(errors[best]), 1e-4)  # or it would be infinite, which JSON has not
        return Latents(
            made["latent"][best : best + 1].numpy(), (round(10 * math.log10(PEAK**2 / least), 2),)
        )
