"""Optimizers by name: Adam, SGD with momentum, and Muon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genimg.schedule import Train

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz's coefficients, Jordan et al. 2024


def optimizer_of(
    train: Train,
    parameters: Sequence[nn.Parameter],
    rate: float,
    betas: tuple[float, float],
    dtype: torch.dtype,
) -> torch.optim.Optimizer:
    """The one that a recipe names, at `rate` times its learning rate.

    betas: of Adam; the first is the momentum of the others
    dtype: in which Muon multiplies matrices
    """
    lr = rate * train.lr
    if train.optimizer == "muon":
        return Muon(parameters, lr, betas, train.weight_decay, dtype)
    groups: Any = parameters
    if train.weight_decay:
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
    decay = train.weight_decay
    if train.optimizer == "sgd":
        momentum = betas[0]
        return torch.optim.SGD(
            groups, lr, momentum, nesterov=momentum > 0, weight_decay=decay, fused=True
        )
    return torch.optim.Adam(
        groups, lr, betas, weight_decay=decay, decoupled_weight_decay=True, fused=True
    )


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before each step (Jordan et al. 2024).

    So learns every weight of two or more dimensions, as a matrix [first dimension, all others],
    but for the last, which makes the outputs; that one, biases, scales and shifts learn by Adam.
    Steps are as long as Adam's (section 2.2, Liu et al. 2025), so both learn at one rate.

    betas: of Adam; the first is the momentum, Nesterov's
    weight_decay: of the matrices; decoupled
    dtype: in which matrices are multiplied
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        matrices = [p for p in parameters if p.dim() >= 2][:-1]
        known = {id(p) for p in matrices}
        others = [p for p in parameters if id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "momentum": betas[0], "weight_decay": weight_decay},
            {"params": others, "betas": betas, "done": 0, "missed": [0] * len(others)},
        ]
        super().__init__(groups, {"lr": lr})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        matrices, others = self.param_groups
        others["done"] += 1  # steps: no tensor, which would have to be read back
        before = others.get("missed") or [0] * len(others["params"])  # older states have none
        pairs = zip(before, others["params"], strict=True)
        others["missed"] = [steps + (parameter.grad is None) for steps, parameter in pairs]
        self._orthogonal(**matrices)
        self._adam(**others)

    def _orthogonal(
        self, params: list[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        learning = [p for p in params if p.grad is not None]
        if not learning:
            return
        gradients: Any = [p.grad for p in learning]
        moments = self._moments(learning, "momentum_buffer")
        torch._foreach_lerp_(moments, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, moments, momentum)
        if weight_decay:
            torch._foreach_mul_(learning, 1 - lr * weight_decay)
        for parameter, direction in zip(learning, ahead, strict=True):
            last = direction.movedim(1, -1)  # as the weights of convolutions lie in memory
            matrix = last.flatten(1)
            step = orthogonalised(matrix.to(self.dtype)).to(parameter.dtype)
            length = 0.2 * math.sqrt(max(matrix.shape))
            parameter.add_(step.view(last.shape).movedim(-1, 1), alpha=-lr * length)

    def _adam(
        self,
        params: list[Tensor],
        lr: float,
        betas: tuple[float, float],
        done: int,
        missed: list[int],
    ) -> None:
        """Those that have a gradient learn, by as many steps as each has had one.

        done: steps, this one included
        missed: at how many of these each had none, as what belongs to a layer yet to be grown
        """
        learning: dict[int, list[Tensor]] = {}
        for parameter, steps in zip(params, missed, strict=True):
            if parameter.grad is not None:
                learning.setdefault(done - steps, []).append(parameter)
        for steps, several in learning.items():
            self._adam_step(several, lr, betas, steps)

    def _adam_step(
        self, learning: list[Tensor], lr: float, betas: tuple[float, float], done: int
    ) -> None:
        """Algorithm 1, Kingma & Ba 2015; done: steps of these, this one included."""
        gradients: Any = [p.grad for p in learning]
        means = self._moments(learning, "exp_avg")
        squares = self._moments(learning, "exp_avg_sq")
        torch._foreach_lerp_(means, gradients, 1 - betas[0])
        torch._foreach_mul_(squares, betas[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, math.sqrt(1 - betas[1] ** done))
        torch._foreach_add_(scales, 1e-8)
        torch._foreach_addcdiv_(learning, means, scales, -lr / (1 - betas[0] ** done))

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """U V' of a matrix [M, N] = U S V', but for singular values, which come out at 0.7 to 1.2.

    By Newton and Schulz's iteration, with coefficients that rather lift the small ones quickly
    than converge (Jordan et al. 2024). Directions without a gradient stay as they are.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
