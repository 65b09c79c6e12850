"""Pictures on meshes: a grid of points, and an affine map of each of its triangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from genimg.composition.flat import bounds, grid
from genimg.composition.layer import Layer, Point
from genimg.composition.surfaces import Seen, Surface, Texture

_MOST = 100  # points a side
_CLOSED = 1e-9  # of a triangle, by which its sides are moved outwards lest one see between two


class Mesh(Layer):
    """A picture as on cloth: each triangle of a grid that is bent goes by an affine map."""

    kind: Literal["mesh"] = "mesh"
    """a picture bent, by a grid of points that move"""
    points: tuple[tuple[Point, ...], ...] = Field(min_length=2, max_length=_MOST)
    """rows of points, x and y each: where those of an even grid over the picture come to lie"""

    @model_validator(mode="after")
    def is_an_unfolded_grid(self) -> Self:
        lengths = {len(row) for row in self.points}
        if len(lengths) > 1 or not 2 <= min(lengths) <= _MOST:
            raise ValueError(
                f"points: rows of {' and '.join(map(str, sorted(lengths)))}; give all rows equally"
                f" many points, 2 to {_MOST}"
            )
        corners, _ = triangles_of(torch.tensor(self.points, dtype=torch.float64))
        area = torch.linalg.det(corners[:, 1:] - corners[:, :1])
        upright = area > 0
        wrong = (upright if upright.sum() * 2 < len(area) else ~upright) | (area == 0)
        if wrong.any():
            row, column = divmod(int(wrong.nonzero()[0, 0]) // 2, lengths.pop() - 1)
            raise ValueError(
                f"points: the mesh folds over, or has no area, between row {row} and {row + 1},"
                f" column {column} and {column + 1} (from 0); move its points apart"
            )
        return self

    def surfaces(
        self, pictures: Sequence[np.ndarray], canvas: tuple[int, int], key: Tensor
    ) -> list[Surface]:
        points = torch.tensor(self.points, dtype=torch.float64)
        corners, uv = triangles_of(points)
        low, high = corners.amin(dim=1), corners.amax(dim=1)
        back = torch.linalg.inv((corners[:, 1:] - corners[:, :1]).mT)
        along = uv[:, 1:] - uv[:, :1]

        def seen(x: Tensor, y: Tensor) -> Seen:
            places = torch.zeros(len(y), len(x), 2, dtype=torch.float64)
            inside = torch.zeros(len(y), len(x), dtype=torch.bool)
            starts = [torch.searchsorted(line, low[:, n].contiguous()).tolist()
                      for n, line in enumerate((x, y))]  # fmt: skip
            stops = [torch.searchsorted(line, high[:, n].contiguous(), right=True).tolist()
                     for n, line in enumerate((x, y))]  # fmt: skip
            for number, (x0, y0, x1, y1) in enumerate(zip(*starts, *stops, strict=True)):
                if x0 >= x1 or y0 >= y1:
                    continue
                part = slice(y0, y1), slice(x0, x1)
                shares = (grid(x[x0:x1], y[y0:y1]) - corners[number, 0]) @ back[number].mT
                within = (shares >= -_CLOSED).all(dim=-1) & (shares.sum(dim=-1) <= 1 + _CLOSED)
                there = uv[number, 0] + shares @ along[number]
                places[part] = torch.where(within[..., None], there, places[part])
                inside[part] |= within
            return Seen(places, inside)

        return [Surface(Texture(pictures[0]), bounds(points.flatten(0, 1)), seen)]


def triangles_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """(corners, their uv), float64 [T, 3, 2], two triangles a cell of a grid [R, C, 2]."""
    rows, columns = points.shape[:2]
    even = grid(
        torch.linspace(0, 1, columns, dtype=torch.float64),
        torch.linspace(0, 1, rows, dtype=torch.float64),
    )

    def cut(values: Tensor) -> Tensor:
        upper, lower = values[:-1], values[1:]
        first = torch.stack([upper[:, :-1], upper[:, 1:], lower[:, :-1]], dim=2)
        second = torch.stack([lower[:, 1:], lower[:, :-1], upper[:, 1:]], dim=2)
        return torch.stack([first, second], dim=2).flatten(0, 2)

    return cut(points), cut(even)
