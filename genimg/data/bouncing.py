"""Clips of two gray images that drift over black and bounce off its borders: Moving-MNIST."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Splittable, Stored
from genimg.data.grids import FRAMES
from genimg.data.of_gray import OfGray
from genimg.data.transfer import to_device
from genimg.rng import fold, integers, uniform

LENGTH = 10_000  # clips that count as an epoch, and those of a test set
TRAINED_ON, HELD_OUT, TEST = 0, 1, 2  # seeds of clips
OBJECTS = 2
STEP = 0.1  # of the room that a digit has, in a frame's time

_BOUNCING = int.from_bytes(b"bounce")


def side_of(size: int) -> int:
    """Of the digits on a canvas of that side: 28 on 64."""
    return size * 28 // 64


class Bouncing(OfGray):
    """A Dataset of clips, in each of which two of some gray images move.

    Moving-MNIST (Srivastava, Mansimov, Salakhutdinov 2015) by the rule of OpenSTL's loader (Tan and
    others 2023), of any gray images of `side_of(size)`: each begins anywhere in the room that it
    has, goes on by STEP of that a frame in a direction of its own, and turns back where it meets a
    border; where both are, the brighter pixel is seen. What moves, and how, follows from the seed
    and a clip's number; without a bound there is no end of these, and every position of a training
    is a new clip, whatever its seed.
    """

    channels = 1
    epoch = LENGTH

    def __init__(
        self,
        gray: Splittable,
        size: int,
        columns: tuple[str, ...] = ("image", "frames"),
        seed: int = TRAINED_ON,
        length: int | None = None,
    ) -> None:
        """length: how many clips there are; None: no end"""
        assert gray.size == side_of(size), gray.size
        super().__init__(gray, size, length, f"bouncing {size} {seed} {length}")
        self._seed = seed
        self.columns = columns

    def parts(self, indices: np.ndarray) -> np.ndarray:
        return integers(self._keys(indices, 0), len(self._gray), (OBJECTS,)).numpy()

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        each = torch.arange(OBJECTS, device=keys.device)
        gray = self._gray.fetch(
            self.parts(indices).reshape(-1), fold(keys[:, None], each).flatten()
        )["image"]
        corners = trajectories(self._keys(indices, 1), self.size - self._gray.size)
        gray = gray.unflatten(0, (-1, OBJECTS))[:, :, 0]
        frames = drawn(gray, to_device(corners, gray.device), self.size)
        stored = {"image": frames[:, :1], "frames": frames}
        return {name: stored[name] for name in self.columns}

    def hold_out(self, count: int) -> tuple[Bouncing, Bouncing]:
        """(the others, `count` clips), of gray images that are held out."""
        rest, kept = self.held_apart(count)
        return (
            Bouncing(rest, self.size, self.columns, self._seed, self._length),
            Bouncing(kept, self.size, self.columns, HELD_OUT, count),
        )

    def _keys(self, indices: np.ndarray, use: int) -> Tensor:
        return fold(_BOUNCING, self._seed, torch.from_numpy(indices), use)


def trajectories(keys: Tensor, room: int) -> Tensor:
    """int64 [N, OBJECTS, FRAMES, 2]: top and left of what moves, of keys int64 [N], on the CPU.

    room: pixels from the first to the last place along a side
    """
    drawn = uniform(keys, (OBJECTS, 3)).double()
    places, angles = drawn[..., :2], 2 * math.pi * drawn[..., 2]
    velocities = STEP * torch.stack([angles.sin(), angles.cos()], dim=-1)
    seen = []
    for _ in range(FRAMES):
        places = places + velocities
        beyond = (places <= 0) | (places >= 1)
        velocities = torch.where(beyond, -velocities, velocities)
        places = places.clamp(0, 1)
        seen.append((room * places).long())
    return torch.stack(seen, dim=2)


def drawn(gray: Tensor, corners: Tensor, size: int) -> Tensor:
    """uint8 [N, F, size, size]: gray images uint8 [N, M, s, s], over one another, with corners at
    int64 [N, M, F, 2] (top, left)."""
    count, side, frames = len(gray), gray.shape[-1], corners.shape[2]
    line = torch.arange(side, device=gray.device)
    inside = (line[:, None] * size + line).flatten()
    canvas = torch.arange(count * frames, device=gray.device).view(count, frames) * size**2
    whole = gray.new_zeros(count * frames * size**2)
    for number in range(gray.shape[1]):
        top, left = corners[:, number].unbind(-1)
        where = (canvas + top * size + left)[..., None] + inside  # each place once
        pixels = gray[:, number].flatten(1)[:, None].expand(-1, frames, -1)
        plane = torch.zeros_like(whole).scatter_(0, where.flatten(), pixels.flatten())
        whole = torch.maximum(whole, plane)
    return whole.view(count, frames, size, size)
