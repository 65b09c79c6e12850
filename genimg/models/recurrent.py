"""Recurrent networks of convolutions: frame by frame, by what they remember of those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.predicting import Beliefs, Predictor
from genimg.models.rows import Conv2d

Cells = Literal["conv-lstm", "predrnn"]


class ConvLSTM(nn.Module):
    """A layer of memory: (x [N, inputs, H, W], hidden h and cell c [N, width, H, W], m) -> h, c, m.

    (Eq. 3, Shi et al. 2015, without peepholes.) What m is it does not use.
    """

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.gates = Conv2d(inputs + width, 4 * width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep, let, new, out = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = kept(c, keep, let, new)
        return out.sigmoid() * c.tanh(), c, m


class SpatiotemporalLSTM(nn.Module):
    """As ConvLSTM, beside a memory m [N, width, H, W] that goes from layer to layer, and from the
    last one to the first of the next frame (eq. 3, Wang et al. 2017, PredRNN)."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.of_x = Conv2d(inputs, 7 * width, kernel, padding=padding)
        self.of_h = Conv2d(width, 4 * width, kernel, padding=padding, bias=False)
        self.of_m = Conv2d(width, 3 * width, kernel, padding=padding, bias=False)
        self.of_both = Conv2d(2 * width, width, kernel, padding=padding, bias=False)
        self.mix = Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = h.shape[1]
        in_time, in_space, out = self.of_x(x).split([3 * width, 3 * width, width], dim=1)
        of_h, out_of_h = self.of_h(h).split([3 * width, width], dim=1)
        c = kept(c, *(in_time + of_h).chunk(3, dim=1))
        m = kept(m, *(in_space + self.of_m(m)).chunk(3, dim=1))
        both = torch.cat([c, m], dim=1)
        out = out + out_of_h + self.of_both(both)
        return out.sigmoid() * self.mix(both).tanh(), c, m


def kept(memory: Tensor, keep: Tensor, let: Tensor, new: Tensor) -> Tensor:
    """What is remembered, of what was and what is new; at first it is rather kept than not."""
    return (keep + 1).sigmoid() * memory + let.sigmoid() * new.tanh()


CELLS: dict[Cells, type[ConvLSTM | SpatiotemporalLSTM]] = {
    "conv-lstm": ConvLSTM,
    "predrnn": SpatiotemporalLSTM,
}


class Recurrent(Predictor):
    """Layers of memory, one above the other, that see a frame and say the next one.

    Pixels are first folded into channels, `patch` x `patch` of them. What has been predicted is
    what is seen next. H and W are multiples of `patch`.
    """

    def __init__(
        self,
        given: int,
        predicted: int,
        channels: int,
        cells: Cells,
        width: int,
        layers: int,
        kernel: int,
        patch: int,
    ) -> None:
        super().__init__(given, predicted)
        self.width, self.patch = width, patch
        pixels = channels * patch**2
        cell = CELLS[cells]
        self.cells = nn.ModuleList(
            cell(width if layer else pixels, width, kernel) for layer in range(layers)
        )
        self.head = Conv2d(width, pixels, 1)

    def forward(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.rolled(frames, None)[:, -self.predicted :]

    def learn(self, frames: Tensor, told: Tensor, noise: Tensor | None) -> tuple[Tensor, Beliefs]:
        """All frames but the first are predicted, those that are given as well."""
        return self.rolled(frames, told), ()

    def rolled(self, frames: Tensor, told: Tensor | None) -> Tensor:
        """[N, given + predicted - 1, C, H, W]: what it says of every frame but the first.

        frames: the given ones, or with `told` all that may be shown
        """
        patches = F.pixel_unshuffle(frames, self.patch)
        first = patches[:, 0]
        memory = blank(first, self.width)
        states = [(memory, memory)] * len(self.cells)
        made: list[Tensor] = []
        for step in range(self.given + self.predicted - 1):
            x = shown(patches, made, step, self.given, told)
            x, memory = through(self.cells, states, x, memory)
            made.append(self.head(x))
        return F.pixel_shuffle(torch.stack(made, dim=1), self.patch)


def through(
    cells: nn.ModuleList, states: list[tuple[Tensor, Tensor]], x: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """What the last of some layers says, and m; hidden and cell of each, in `states`, go on."""
    for layer, cell in enumerate(cells):
        x, c, memory = cell(x, *states[layer], memory)
        states[layer] = x, c
    return x, memory


def blank(patches: Tensor, width: int) -> Tensor:
    """What is remembered before anything was seen: zeros [N, width, H, W], beside [N, C, H, W]."""
    zeros = patches.new_zeros(len(patches), width, *patches.shape[2:])
    return zeros.contiguous(memory_format=torch.channels_last)


def shown(
    frames: Tensor, made: Sequence[Tensor], step: int, given: int, told: Tensor | None
) -> Tensor:
    """[N, C, H, W]: what is seen at a step, the frame itself or what was made of it.

    frames: [N, T, C, H, W]; told: bool [N, T], which of those behind the given ones may be seen
    """
    if step < given:
        return frames[:, step].contiguous(memory_format=torch.channels_last)
    if told is None:
        return made[-1]
    return torch.where(told[:, step, None, None, None], frames[:, step], made[-1])
