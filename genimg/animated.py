"""The plan of frames that go on: each lap makes some, by those before them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from genimg.contracts import Ability, Rows
from genimg.inference import latents
from genimg.plans import Fitted, to_arrays
from genimg.results import Frames
from genimg.rng import fold


class Animated(Fitted):
    """Frames and those that follow, brought to the model's size.

    frames: uint8 or uint16 [H, W, C], of which the last go in, as many as the model goes by;
        before fewer the first of them stands again and again; in place of none gray ones
    more: how many follow
    seed: of the future, of models that draw one
    """

    def __init__(
        self, ability: Ability, frames: Sequence[np.ndarray], more: int, seed: int | None = None
    ) -> None:
        self._known, self._step = ability.frames
        super().__init__(ability, [*frames][-self._known :], lambda made: None)
        known = [self._fitted(frame) for frame in self._images]
        self._shown, self._more, self._seed = len(known), more, seed
        assert ability.side is not None, "frames have a size"
        gray = torch.zeros(ability.channels, ability.side, ability.side)
        before = [*known[:1], gray][:1] * (self._known - len(known))
        self._frames = torch.stack([*before, *known])
        self.count = -(-more // self._step)
        self.key = id(self)

    def lap(self, row: int) -> tuple[Hashable, int]:
        return (self.key, row), row + 1

    def rows(self, start: int, stop: int) -> Rows:
        first = start * self._step
        rows: Rows = {"frames": self._frames[first : first + self._known][None]}
        if self._seed is not None:
            seeds = fold(torch.tensor([self._seed]), start)
            rows["latent"] = latents(seeds, self._ability.latent)
        return rows

    def put(self, start: int, made: Rows) -> None:
        so_far = self._frames[: self._known + start * self._step]
        self._frames = torch.cat([so_far, made["frames"][0].cpu()])

    def result(self) -> Frames:
        first = self._known - self._shown
        shown = to_arrays(self._frames[first : self._known + self._more])
        return Frames(shown, () if self._seed is None else (self._seed,))
