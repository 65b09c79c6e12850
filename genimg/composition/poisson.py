"""Poisson image editing (Pérez, Gangnet, Blake 2003): gradients of one image within another.

What is solved is their eq. 7, as it stands, on the pixels of a region of any shape: by conjugate
gradients, preconditioned by the solution on the region's whole rectangle, which sine transforms
give at once. So a region takes tens of rounds where plain conjugate gradients take about as many as
it has pixels along its sides.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ENOUGH = 1e-7  # of the first error, in the energy norm
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
    right = wanted * region
    made = torch.zeros_like(right)
    eased = on_rectangle(right) * region
    direction, energy = eased, dots(right, eased)
    enough = energy * _ENOUGH**2
    for _ in range(_ROUNDS):
        if (energy <= enough).all():
            break
        applied = outflow(*steps(direction)) * region
        step = energy / dots(direction, applied)
        step = torch.where(energy > enough, step, 0)
        made += step * direction
        right = right - step * applied
        eased = on_rectangle(right) * region
        before, energy = energy, dots(right, eased)
        ratio = torch.where(before > enough, energy / before, 0)
        direction = eased + ratio * direction
    return made


def on_rectangle(wanted: Tensor) -> Tensor:
    """What has a Laplacian [C, H, W] and is 0 around it, by sine transforms."""
    height, width = wanted.shape[1:]
    rates = [
        2 - 2 * (torch.arange(1, side + 1, dtype=torch.float64) * math.pi / (side + 1)).cos()
        for side in (height, width)
    ]
    waves = sines(sines(wanted).mT).mT / (rates[0][:, None] + rates[1])
    return sines(sines(waves).mT).mT * (4 / ((height + 1) * (width + 1)))


def sines(values: Tensor) -> Tensor:
    """The sine transform (DST-I) along the last axis: sum of x_j sin(pi j k / (L + 1))."""
    length = values.shape[-1]
    padded = F.pad(values, (1, length + 1))
    return -torch.fft.rfft(padded).imag[..., 1 : length + 1]


def dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2), keepdim=True)
