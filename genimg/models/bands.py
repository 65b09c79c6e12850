"""Layers upon images so large that what lies between two layers would fill the memory."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

BAND = 2**22  # numbers of the features that a layer makes at a time, about
ROWS = 32  # in a band, at least, for each that a layer sees beyond it


class Residual(nn.Module):
    """x + added(x), both [N, C, H, W]."""

    def added(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return x + self.added(x)


def through(
    layers: nn.Module | Iterable[nn.Module], x: Tensor, *, reach: int = 2, ours: bool = False
) -> Tensor:
    """Layers one after the other, each of which keeps the sides of x [N, C, H, W].

    Without gradients a large image goes through each in bands of rows, and what is made of them
    takes their place: its features are held once, and of what is between two convolutions a band.
    Kernels find a band in the processor's cache, besides.

    layers: a Sequential, or some of its layers
    reach: rows to either side that a layer sees, at most
    ours: x itself may be overwritten
    """
    for layer in cast("Iterable[nn.Module]", layers):
        if isinstance(layer, nn.Identity):
            continue
        rows = max(ROWS * reach, BAND // x[0, :, :1].numel())
        if torch.is_grad_enabled() or len(x) > 1 or rows >= x.shape[-2]:
            x = layer(x)
        else:
            x = in_bands(layer, x, rows, reach, ours)
        ours = True
    return x


def in_bands(layer: nn.Module, x: Tensor, rows: int, reach: int, ours: bool) -> Tensor:
    """layer(x) of x [1, C, H, W], so many rows at a time; in the place of x where it is ours."""
    compute = layer.added if isinstance(layer, Residual) else layer
    made: Tensor | None = None
    waiting: list[tuple[int, Tensor]] = []  # (first row, what is made of some)

    def put() -> None:
        assert made is not None, "some is made"
        for first, part in waiting:
            there = slice(first, first + part.shape[-2])
            if compute is layer:
                made[..., there, :] = part
            else:
                torch.add(x[..., there, :], part, out=made[..., there, :])

    for start in range(0, x.shape[-2], rows):
        stop, top = start + rows, max(start - reach, 0)
        band = compute(x[..., top : stop + reach, :])[..., start - top : stop - top, :]
        if made is None:
            shape = (1, band.shape[1], *x.shape[-2:])
            fits = ours and band.dtype == x.dtype and shape == x.shape
            made = x if fits else torch.empty(
                shape, dtype=band.dtype, device=x.device, memory_format=torch.channels_last
            )  # fmt: skip
        waiting.append((start, band[..., : rows - reach, :]))
        put()
        # which the next band still has to see as they were, where they are in the place of x
        waiting = [(stop - reach, band[..., rows - reach :, :].clone())]
    put()
    assert made is not None, "images have rows"
    return made
