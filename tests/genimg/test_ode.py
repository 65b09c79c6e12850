"""Solvers of differential equations, on some whose solutions are known."""

import math

import pytest
import torch

from genimg.ode import solve, unsolve

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2}
every_solver = pytest.mark.parametrize("solver", ORDERS)


@every_solver
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_straight_way_is_gone_exactly_in_any_number_of_steps(solver, steps):
    start, slope = torch.randn(3, 2), torch.randn(3, 2)
    torch.testing.assert_close(solve(lambda x, t: slope, start, steps, solver), start + slope)


@every_solver
def test_the_error_falls_by_the_solvers_order(solver):
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def error(steps: int) -> float:
        made = solve(lambda x, t: x * (1 + t), start, steps, solver)
        return (made - start * math.exp(1.5)).abs().max().item()

    assert error(20) / error(40) == pytest.approx(2 ** ORDERS[solver], rel=0.1)


@every_solver
def test_a_step_is_that_of_the_textbooks(solver):
    x, h = torch.tensor([0.3]), 0.5
    asked: list[float] = []

    def slope(at: torch.Tensor, time: float) -> torch.Tensor:
        asked.append(time)
        return at.square() + time

    made = solve(slope, x, 2, solver)
    for n in range(2):
        k1 = x**2 + n * h
        k2 = {
            "euler": k1,
            "midpoint": (x + h / 2 * k1) ** 2 + n * h + h / 2,
            "heun": (k1 + (x + h * k1) ** 2 + n * h + h) / 2,
        }[solver]
        x = x + h * k2
    torch.testing.assert_close(made, x)
    assert (
        asked
        == {
            "euler": [0, 0.5],
            "midpoint": [0, 0.25, 0.5, 0.75],
            "heun": [0, 0.5, 0.5, 1.0],
        }[solver]
    )


@every_solver
@pytest.mark.parametrize("steps", [2, 8])
def test_the_way_back_leads_to_where_the_same_steps_began(solver, steps):
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def slope(x: torch.Tensor, time: float) -> torch.Tensor:
        return torch.sin(x) * (1 - time) - 0.3 * x

    end = solve(slope, start, steps, solver)
    errors = [
        (unsolve(slope, end, steps, solver, rounds) - start).abs().max() for rounds in (2, 40)
    ]
    assert errors[1] < 1e-12 < errors[0]
    found = end
    for begun in range(0, steps, 3):
        found = unsolve(slope, found, steps, solver, begun=begun, most=3)
    assert torch.equal(found, unsolve(slope, end, steps, solver))
