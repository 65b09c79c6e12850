"""A method: a learning rule with its networks, their averages and optimizers, and their state."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genimg.contracts import Batch, Sync
from genimg.precision import resolved

if TYPE_CHECKING:
    from genimg.recipe import Train


@dataclass(frozen=True)
class Snapshot:
    """A method's state at one moment, copied to the CPU: what a checkpoint is written from."""

    weights: dict[str, Tensor]  # inference networks: averages where there are any
    training: dict[str, Tensor]  # trained networks and optimizer moments
    progress: dict[str, Any]  # plain values, for JSON


class Method(ABC):
    """Owns `networks` (trained), `averages` (their EMA, for inference) and `optimizers`.

    Subclasses implement `update`. `averaged` names the networks that inference needs.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        averaged: tuple[str, ...],
        train: Train,
        device: torch.device,
        betas: tuple[float, float],
    ) -> None:
        self.train = train
        self.device = device
        self.seen = 0  # images trained on, over all workers
        self.networks = {
            name: network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
            for name, network in networks.items()
        }
        self.averages = {
            name: copy.deepcopy(self.networks[name]).eval().requires_grad_(False)
            for name in averaged
        }
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=train.lr, betas=betas, fused=True)
            for name, network in self.networks.items()
        }
        self.autocast = torch.autocast(
            device.type,
            torch.bfloat16,
            enabled=resolved(train.precision, device) == "bfloat16",
        )
        if train.compile:
            for network in self.networks.values():
                network.compile()

    @abstractmethod
    def update(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        """One whole step; returns scalar losses of this worker's images, on the device."""

    def step(self, name: str, loss: Tensor, batch: Batch, sync: Sync) -> None:
        """Backward through one network, agree on the gradients, clip, and move its weights."""
        network, optimizer = self.networks[name], self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        sync.gradients(network.parameters(), batch.share)
        if self.train.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.train.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.train, self.seen)
        optimizer.step()

    def finish(self, batch: Batch, sync: Sync) -> None:
        """What ends every update: buffers agree, averages follow, images are counted."""
        sync.buffers(self.networks.values(), batch.share)
        self.seen += batch.total
        decay = average_decay(self.train.ema_half_life, self.seen, batch.total)
        with torch.no_grad():
            for name, average in self.averages.items():
                network = self.networks[name]
                torch._foreach_lerp_(
                    list(average.parameters()), list(network.parameters()), 1 - decay
                )
                for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
                    mine.copy_(theirs)

    def snapshot(self) -> Snapshot:
        """A copy of everything, so that training may go on while it is written."""
        training = flatten_states(self.networks)
        progress: dict[str, Any] = {"seen": self.seen, "optimizers": {}}
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            progress["optimizers"][name] = state["param_groups"]
            for index, moments in state["state"].items():
                for moment, tensor in moments.items():
                    training[f"optimizer.{name}.{index}.{moment}"] = tensor
        return Snapshot(copied(flatten_states(self.averages)), copied(training), progress)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue exactly from a snapshot."""
        load_states(self.averages, snapshot.weights)
        load_states(self.networks, snapshot.training)
        for name, optimizer in self.optimizers.items():
            prefix = f"optimizer.{name}."
            parameters = list(self.networks[name].parameters())
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in snapshot.training.items():
                if key.startswith(prefix):
                    index, moment = key.removeprefix(prefix).split(".")
                    if tensor.dim():  # fused steps want moments laid out as the weights are
                        tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
                    state.setdefault(int(index), {})[moment] = tensor
            groups = snapshot.progress["optimizers"][name]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.seen = snapshot.progress["seen"]


def learning_rate(train: Train, seen: int) -> float:
    """The rate for the step after `seen` images: warm-up, then the chosen decay to 0."""
    rate = train.lr
    if seen < train.warmup:
        rate *= (seen + train.batch_size) / (train.warmup + train.batch_size)
    done = min(seen / train.images, 1.0)
    if train.decay == "linear":
        rate *= 1 - done
    elif train.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate


def average_decay(half_life: int, seen: int, step: int) -> float:
    """Decay of the EMA over `step` images; early on, the half-life is 5 % of the images seen.

    (The ramp-up of Karras et al. 2020, Training GANs with limited data.)
    """
    ramped = min(half_life, 0.05 * seen)
    return 0.5 ** (step / ramped) if ramped > 0 else 0.0


def flatten_states(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    """{'network.parameter': tensor} of several networks."""
    return {
        f"{name}.{key}": tensor
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def load_states(networks: dict[str, nn.Module], tensors: dict[str, Tensor]) -> None:
    """The inverse of flatten_states; every tensor of every network must be there."""
    for name, network in networks.items():
        prefix = f"{name}."
        network.load_state_dict(
            {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        )


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
