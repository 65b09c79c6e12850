"""Poisson image editing (Pérez, Gangnet, Blake 2003): gradients of one image within another.

What is solved is their eq. 7, as it stands, on the pixels of a region of any shape: by conjugate
gradients, preconditioned by the solution on the whole rectangle around it, which Fourier transforms
give at once. So a region takes tens of rounds where plain conjugate gradients take about as many as
it has pixels along its sides.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ENOUGH = 1e-6  # of the first error, in the energy norm: a hundredth of a level of bytes
_ROUNDS = 500
_TIE = 1e-4  # of gradients that are as good as equal, of bytes for one


def cloned(target: Tensor, source: Tensor, region: Tensor, mixed: bool = False) -> Tensor:
    """The target with the source's gradients in a region; elsewhere as it is.

    target, source: float32 [C, H, W]; region: bool [H, W], at a pixel of which the source and its
    four neighbours are known. Where the region meets a border of the image the solution is free
    there. mixed: gradients of the target where they are greater (eq. 12), a pair of pixels at a
    time. What is all region has nothing that it could follow: it is the source. Not clipped.
    """
    if region.all():
        return source.clone()
    if not region.any():
        return target.clone()
    wanted = []
    for over, under in zip(steps(source.double()), steps(target.double()), strict=True):
        excess = over - under
        wanted.append(torch.where(under.abs() > over.abs() + _TIE, 0, excess) if mixed else excess)
    correction = solved(region, outflow(*wanted))
    return target + correction.to(target.dtype)


def eroded(region: Tensor) -> Tensor:
    """bool [H, W]: pixels whose four neighbours, but those beyond a border, are in a region too."""
    padded = F.pad(region[None].float(), (1, 1, 1, 1), value=1.0)[0].bool()
    beside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & beside


def steps(values: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of pixels [C, H, W] to those below, and to those right of them."""
    return values[:, :-1] - values[:, 1:], values[..., :-1] - values[..., 1:]


def outflow(down: Tensor, right: Tensor) -> Tensor:
    """[C, H, W]: sums of pixels' differences to their neighbours; of `steps` the Laplacian."""
    count, height, width = down.shape[0], right.shape[1], down.shape[2]
    made = torch.zeros(count, height, width, dtype=down.dtype)
    made[:, :-1] += down
    made[:, 1:] -= down
    made[..., :-1] += right
    made[..., 1:] -= right
    return made


def solved(region: Tensor, wanted: Tensor) -> Tensor:
    """What has a Laplacian float64 [C, H, W] in a region bool [H, W], and is 0 elsewhere."""
    near = tuple(map(span, (region.any(dim=1), region.any(dim=0))))
    part = (slice(None), *near)
    region, right = region[near], wanted[part] * region[near]
    rectangle = Rectangle(region)
    found = torch.zeros_like(right)
    eased = rectangle.solved(right) * region
    direction, energy = eased, dots(right, eased)
    enough = energy * _ENOUGH**2
    for _ in range(_ROUNDS):
        if (energy <= enough).all():
            break
        applied = outflow(*steps(direction)) * region
        step = torch.where(energy > enough, energy / dots(direction, applied), 0)
        found += step * direction
        right = right - step * applied
        eased = rectangle.solved(right) * region
        before, energy = energy, dots(right, eased)
        direction = eased + torch.where(before > enough, energy / before, 0) * direction
    made = torch.zeros_like(wanted)
    made[part] = found
    return made


def span(lines: Tensor) -> slice:
    """From one before the first that is so, of bool [L], to one behind the last, within L."""
    places = lines.nonzero()[:, 0]
    return slice(max(0, int(places[0]) - 1), min(len(lines), int(places[-1]) + 2))


class Rectangle:
    """Solves the equations on the whole rectangle around a region bool [H, W].

    Where the region meets one of its borders that is free; along the others lie pixels that are
    not of the region, and 0.
    """

    def __init__(self, region: Tensor) -> None:
        ends = [(bool(each[0].any()), bool(each[-1].any())) for each in (region, region.mT)]
        self.inner = tuple(slice(int(not a), None if b else -1) for a, b in ends)
        height, width = region[self.inner].shape
        self.down, self.across = Waves(height, *ends[0]), Waves(width, *ends[1])
        rates = self.down.rates[:, None] + self.across.rates
        # where all borders are free a constant has a rate of 0
        self.factors = (1 / rates.clamp(min=1 / rates.numel())).float()

    def solved(self, wanted: Tensor) -> Tensor:
        """What has a Laplacian float64 [C, H, W], to within float32."""
        inner = (slice(None), *self.inner)
        waves = self.down.of(self.across.of(wanted[inner].float()).mT).mT * self.factors
        made = torch.zeros_like(wanted)
        made[inner] = self.across.to(self.down.to(waves.mT).mT).double()
        return made


class Waves:
    """The waves of a line of pixels that are solutions of their own, by Fourier transforms.

    An end that is free has a neighbour of its own value, another one of 0. With none free it is
    the DST-I, with both the DCT-II, and with one every second wave of a DST-I of twice the length.
    """

    def __init__(self, length: int, free_start: bool, free_end: bool) -> None:
        self.even = free_start and free_end
        line = torch.arange(length)
        if self.even:
            self.period, self.pixels, self.waves = 4 * length, 2 * line + 1, line
        elif free_start or free_end:
            self.period, self.pixels, self.waves = 4 * length + 2, line + 1, 2 * line + 1
        else:
            self.period, self.pixels, self.waves = 2 * length + 2, line + 1, line + 1
        if free_start and not free_end:
            self.pixels = self.pixels.flip(0)
        angles = self.waves.double() * (2 * math.pi * (1 + self.even) / self.period)
        self.rates = 2 - 2 * angles.cos()
        self.squares = torch.full((length,), self.period / (8 if free_start or free_end else 4))
        if self.even:
            self.squares[0] *= 2

    def of(self, values: Tensor) -> Tensor:
        """Amounts [..., L] of the waves in values [..., L]."""
        return self._transformed(values, self.pixels, self.waves) / self.squares

    def to(self, amounts: Tensor) -> Tensor:
        """The values that have such amounts."""
        return self._transformed(amounts, self.waves, self.pixels)

    def _transformed(self, values: Tensor, here: Tensor, there: Tensor) -> Tensor:
        spread = values.new_zeros(*values.shape[:-1], self.period)
        spread[..., here] = values
        made = torch.fft.rfft(spread)
        return (made.real if self.even else -made.imag)[..., there]


def dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2), keepdim=True)
