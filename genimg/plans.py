"""How an operation becomes rows: what is fitted is here, genimg.drawn and genimg.tiled the rest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.data.fitting import laid, placed
from genimg.errors import InputError
from genimg.inference import latents
from genimg.pixels import in_bytes, to_bytes_range, with_channels
from genimg.results import Latents, Pictures, Values


class Alike:
    """A plan of which all rows may share a pass."""

    count: int
    key: Hashable
    steps = 1

    def lap(self, row: int) -> tuple[Hashable, int]:
        return self.key, self.count


class Kept(Alike):
    """A plan that keeps what a pass has made as it is."""

    def converted(self, made: Rows) -> Rows:
        return made


class Fitted(Kept):
    """Images brought to the size that the model has learnt.

    images: one uint8 or uint16 [H, W, C] of any size, or several; alpha is left out
    result: makes the result of all rows, on the CPU
    """

    def __init__(
        self,
        ability: Ability,
        images: np.ndarray | Sequence[np.ndarray],
        result: Callable[[Rows], Any],
    ) -> None:
        self._images = [images] if isinstance(images, np.ndarray) else list(images)
        assert ability.side is not None, "what is fitted has a size to be fitted to"
        for image in self._images:
            if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or not image.size:
                raise InputError(f"image of shape {list(image.shape)}: expected [H, W, 1 to 4]")
        self.count = len(self._images)
        self.key = None
        self.pixels = ability.side**2
        self._ability = ability
        self._result = result
        self._made: dict[int, Rows] = {}

    def rows(self, start: int, stop: int) -> Rows:
        return {"image": torch.stack([self._fitted(i) for i in self._images[start:stop]])}

    def put(self, start: int, made: Rows) -> None:
        self._made[start] = {name: each.cpu() for name, each in made.items()}  # type: ignore

    def result(self) -> Any:
        parts = [self._made[start] for start in sorted(self._made)]
        return self._result({name: torch.cat([part[name] for part in parts]) for name in parts[0]})  # type: ignore

    def _fitted(self, image: np.ndarray) -> Tensor:
        """float32 [C, side, side] in [-1, 1]"""
        ability = self._ability
        assert ability.side is not None
        colour = opaque(image)
        fit = "resize" if ability.fit == "crop" else ability.fit
        place = placed(colour.shape[:2], ability.side, fit)
        colour = with_channels(colour, ability.channels)
        square = laid(colour, place, Image.Resampling.LANCZOS)
        return torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1).mul(2 / 255).sub_(1)


class Varied(Fitted):
    """Images near one: its row again and again, each time with the latents of another seed.

    strength: factor on the latents; shift: float32 [D], what is added to all
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        seeds: Sequence[int],
        strength: float,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__(
            ability, image, lambda made: Pictures(to_arrays(made["image"]), tuple(seeds))
        )
        self.count = len(seeds)
        self._seeds, self._strength, self._shift = seeds, strength, shift
        self._row = self._fitted(image)

    def rows(self, start: int, stop: int) -> Rows:
        seeds = torch.tensor(self._seeds[start:stop], dtype=torch.int64)
        moved = latents(seeds, self._ability.latent) * self._strength
        moved = moved if self._shift is None else moved + self._shift
        return {"image": self._row.expand(stop - start, -1, -1, -1), "latent": moved}


def opaque(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 1 or 3] of uint8 or uint16 [H, W, 1 to 4]."""
    image = in_bytes(image)
    return np.ascontiguousarray(image[..., : image.shape[2] - (image.shape[2] in (2, 4))])


def picture_of(made: Rows) -> Pictures:
    return Pictures(to_arrays(made["image"]))


def latents_of(made: Rows) -> Latents:
    return Latents(made["latent"].numpy())


def likeliest(made: Rows, ability: Ability, top: int) -> Values:
    """The likeliest classes of each image, with their probabilities."""
    scores, places = made["scores"].topk(min(top, len(ability.classes)), dim=1)
    return Values([
        [
            {"label": ability.classes[place], "probability": score}
            for score, place in zip(*pair, strict=True)
        ]
        for pair in zip(scores.tolist(), places.tolist(), strict=True)
    ])  # fmt: skip


def to_arrays(images: Tensor) -> np.ndarray:
    """float [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]."""
    return to_bytes_range(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
