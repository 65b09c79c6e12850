"""Ordinary differential equations: from time 0 to time 1 in equal steps."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Slope = Callable[[Tensor, float], Tensor]
Solver = Literal["euler", "midpoint", "heun"]


def solve(slope: Slope, start: Tensor, steps: int, solver: Solver) -> Tensor:
    """x(1) of dx/dt = slope(x, t) with x(0) = start, any shape.

    euler asks for one slope a step and errs by a term of order 1 / steps; midpoint and heun (the
    explicit trapezoidal rule) ask for two and err by one of order 1 / steps^2 (section II.1 of
    Hairer, Norsett, Wanner 1993).
    """
    x, length = start, 1 / steps
    for step in range(steps):
        x = x + length * mean_slope(slope, x, step * length, length, solver)
    return x


def unsolve(
    slope: Slope,
    end: Tensor,
    steps: int,
    solver: Solver,
    rounds: int = 8,
    begun: int = 0,
    most: int | None = None,
) -> Tensor:
    """x(0) from which `solve` comes to `end`, with the same slope, steps and solver.

    Each step is undone by fixed-point iteration, x = y - length * mean_slope(x), whose error falls
    by a factor of about length times the slope's Lipschitz constant in each of the `rounds`; where
    that is above 1, more steps are needed.

    begun: how many of the steps, from the last one on, are undone already, down to `end`
    most: steps that are undone now, at most; None: all that are left
    """
    y, length = end, 1 / steps
    left = steps - begun
    for step in reversed(range(0 if most is None else max(left - most, 0), left)):
        x = y
        for _ in range(rounds):
            x = y - length * mean_slope(slope, x, step * length, length, solver)
        y = x
    return y


def mean_slope(slope: Slope, x: Tensor, time: float, length: float, solver: Solver) -> Tensor:
    """By which a step of a length goes on from x at a time."""
    here = slope(x, time)
    if solver == "midpoint":
        return slope(x + 0.5 * length * here, time + 0.5 * length)
    if solver == "heun":
        return 0.5 * (here + slope(x + length * here, time + length))
    return here
