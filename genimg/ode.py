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
        time = step * length
        here = slope(x, time)
        if solver == "midpoint":
            here = slope(x + 0.5 * length * here, time + 0.5 * length)
        elif solver == "heun":
            here = 0.5 * (here + slope(x + length * here, time + length))
        x = x + length * here
    return x
