"""A method: a learning rule with its networks, their averages and optimizers, and their state."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Batch, Division, Rows, Sync
from genimg.precision import resolved
from genimg.schedule import Train, along, average_decay, burnt_in, learning_rate
from genimg.training.kernels import kernels
from genimg.training.optimizers import optimizer_of


@dataclass(frozen=True)
class Snapshot:
    """A method's state at one moment, copied to the CPU: what a checkpoint is written from."""

    weights: dict[str, Tensor]  # inference networks: averages where there are any
    training: dict[str, Tensor]  # trained networks and optimizer moments
    progress: dict[str, Any]  # plain values, for JSON


@dataclass(frozen=True)
class Part:
    """A network that a method trains, and how.

    betas: of Adam; the first is the momentum of other optimizers
    beta2_end: to where the second goes during the burn-in; None: it stays
    rate: factor on the recipe's learning rate
    kept: whether inference needs it: then its weights are averaged, and are in a checkpoint
    """

    network: nn.Module
    betas: tuple[float, float] = (0.9, 0.99)
    rate: float = 1.0
    kept: bool = True
    beta2_end: float | None = None


def parameters_of(network: nn.Module) -> list[nn.Parameter]:
    """All of them, a reader's first: so those of the layer that makes the outputs are last."""
    named = sorted(network.named_parameters(), key=lambda pair: not pair[0].startswith("reader."))
    return [parameter for _, parameter in named]


class Method(ABC):
    """Owns `networks` (trained), `averages` (their EMA, for inference) and `optimizers`.

    Subclasses implement `learn`, and keep what else they learn, alike on all workers, in `state`.
    """

    def __init__(self, parts: Mapping[str, Part], train: Train, device: torch.device) -> None:
        self.train = train
        self.device = device
        self.seen = 0  # images trained on, over all workers
        self.state: dict[str, Tensor] = {}
        self.networks = {
            name: part.network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
            for name, part in parts.items()
        }
        self.averages = {
            name: copy.deepcopy(self.networks[name]).eval().requires_grad_(False)
            for name, part in parts.items()
            if part.kept
        }
        lower = resolved(train.precision, device) == "bfloat16"
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=lower)
        dtype = torch.bfloat16 if lower else torch.float32
        self.optimizers = {
            name: optimizer_of(train, parameters_of(part.network), part.rate, part.betas, dtype)
            for name, part in parts.items()
        }
        self._parts = dict(parts)
        # Found once: at thousands of images a second it would cost to walk the modules each step.
        modules = [module for network in self.networks.values() for module in network.modules()]
        self._whole_batch_layers = [module for module in modules if hasattr(module, "division")]
        pairs = [(self.averages[name], self.networks[name]) for name in self.averages]
        self._averaged = [(averaged(a), averaged(n)) for a, n in pairs]
        self._buffers = [
            (
                [tensor for tensor in copied_to if tensor.dtype == dtype],
                [tensor for tensor in of if tensor.dtype == dtype],
            )
            for copied_to, of in ((others(a), others(n)) for a, n in pairs)
            for dtype in {tensor.dtype: None for tensor in of}
        ]

    def update(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        """One whole step; scalar losses of this worker's images, float32, on the device."""
        with kernels(self.train.deterministic, self.device), self._divided(batch, sync):
            losses = self.learn(batch, sync)
        return {name: loss.detach().float() for name, loss in losses.items()}

    def drawn(self, keys: Tensor) -> Rows:
        """Random numbers of images with keys int64 [N], which `learn` finds among a batch's rows
        where a loader has drawn them: of several batches in one go, beside the training."""
        return {}

    @abstractmethod
    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        """What `update` does: a step of every network, and `finish`; returns scalar losses."""

    def compiled(self, function: Any) -> Callable[..., Any]:
        """A network, or a function of it, as fast as the recipe wants it.

        The network itself stays as it is: its names, copies and state know nothing of it, and
        what differentiates twice, which compiled functions cannot, calls it directly.
        """
        return torch.compile(function) if self.train.compile else function

    def step(self, name: str, loss: Tensor, batch: Batch, sync: Sync) -> None:
        """Backward through one network, agree on the gradients, clip, and move its weights."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = learnt_by(optimizer)
        sync.gradients(parameters, batch.share)
        if self.train.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.train.clip_norm)
        part = self._parts[name]
        beta1, beta2 = part.betas
        beta2 = along(beta2, part.beta2_end, burnt_in(self.train, self.seen))
        for group in optimizer.param_groups:
            group["lr"] = part.rate * learning_rate(self.train, self.seen)
            if "betas" in group:
                group["betas"] = (beta1, beta2)
        optimizer.step()

    @torch.no_grad()
    def finish(self, batch: Batch) -> None:
        """What ends every step: images are counted, and the averages follow.

        Other buffers are copied, not agreed on: what all workers hold must follow from what they
        share.
        """
        self.seen += batch.total
        decay = average_decay(self.train.ema_half_life, self.seen, batch.total)
        for averages, values in self._averaged:
            torch._foreach_lerp_(averages, values, 1 - decay)
        for copies, buffers in self._buffers:
            torch._foreach_copy_(copies, buffers)

    @contextmanager
    def _divided(self, batch: Batch, sync: Sync) -> Iterator[None]:
        """Layers that compute with the whole batch reach beyond this worker's share of it."""
        if sync.world == 1 or not self._whole_batch_layers:
            yield
            return
        share = batch.share
        division = Division(share, lambda values: sync.mean(values, share))
        try:
            for layer in self._whole_batch_layers:
                layer.division = division
            yield
        finally:  # so that a network by itself, and a copy of it, knows of no workers
            for layer in self._whole_batch_layers:
                layer.division = None

    def snapshot(self) -> Snapshot:
        """A copy of everything, so that training may go on while it is written."""
        training = flatten_states(self.networks)
        training |= {f"state.{name}": tensor for name, tensor in self.state.items()}
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
        for name, tensor in self.state.items():
            tensor.copy_(snapshot.training[f"state.{name}"])
        for name, optimizer in self.optimizers.items():
            prefix = f"optimizer.{name}."
            parameters = learnt_by(optimizer)
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


def averaged(network: nn.Module) -> list[Tensor]:
    """What averages follow: weights, and running statistics of batch normalisation.

    At inference these are to be of what averaged weights compute, which the trained ones' of the
    last few batches are not: generators of a constant rate draw worse by them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    running = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
    return [*network.parameters(), *(tensor for tensor in running if tensor is not None)]


def others(network: nn.Module) -> list[Tensor]:
    """The buffers of which there is no average."""
    known = {id(tensor) for tensor in averaged(network)}
    return [tensor for tensor in network.buffers() if id(tensor) not in known]


def classes_of(batch: Batch, count: int) -> Tensor | None:
    """float32 [N, count]: 1 for each image's own class, 0 for the others; None where count is 0."""
    return F.one_hot(batch.rows["label"], count).float() if count else None


def told(network: nn.Module, batch: Batch, count: int) -> Tensor | None:
    """What a network is told of each image: `classes_of`, or what its `reader`, if it has one,
    reads in the image's text."""
    reader = getattr(network, "reader", None)
    if reader is None:
        return classes_of(batch, count)
    read: Tensor = reader(batch.rows["text"])
    return read


def untold(told: Tensor, keys: Tensor, drop: float) -> Tensor:
    """What is told of each image, [N, ...], or with a probability of `drop` zeros; keys: int64 [N].

    So what is told nothing is learnt as well (section 3.2, Ho & Salimans 2022).
    """
    kept = (rng.uniform(keys) >= drop).float()
    return told * kept.view(-1, *[1] * (told.dim() - 1))


def learnt_by(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters of all its groups, in the order by which its state is numbered."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


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
