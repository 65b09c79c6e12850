"""The one place that runs networks for inference: in passes, in a precision, in workers' shares."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from genimg import rng
from genimg.contracts import Dataset, Rows, Sync
from genimg.models.rows import FirstConvTranspose2d
from genimg.models.upscaling import fold
from genimg.packing import pack
from genimg.passes import CHUNK, Compute, Sizes, division, filled
from genimg.precision import Precision
from genimg.training.sync import Alone, share

if TYPE_CHECKING:
    from genimg.engine import Engine

LATENTS, CLASSES = 21, 22  # tags under which an image's seed gives its latents, and its class


@dataclass(frozen=True)
class Inference:
    """Networks in evaluation mode on one device, how they compute, and with whom.

    What recipes evaluate, and what engines are made of. All workers of a training evaluate
    together: each computes its `share` of the rows and `gather` gives everyone those of all.

    most: rows in one pass, at most, unless more are asked for.
    sizes: of passes in which a row has the same bits; None: any, whatever comes of it.
    helpers: engines of the models that a recipe names as such, by what it calls them.
    """

    networks: Mapping[str, nn.Module]
    precision: Precision = "float32"
    sync: Sync = Alone()  # noqa: RUF009  (it holds nothing)
    most: int = CHUNK
    sizes: Sizes | None = None
    helpers: Mapping[str, Engine] = field(default_factory=dict)

    @classmethod
    def of_copies(
        cls,
        networks: Mapping[str, nn.Module],
        precision: Precision,
        sync: Sync,
        most: int = CHUNK,
        helpers: Mapping[str, Engine] | None = None,
    ) -> Self:
        """Of networks that train on, as an engine of theirs would compute: what is measured is
        what will be served."""
        copies = {
            name: prepared(copy.deepcopy(network).eval(), precision)
            for name, network in networks.items()
        }
        return cls(copies, precision, sync, most, helpers=helpers or {})

    @cached_property  # to walk through the modules takes as long as small networks do
    def device(self) -> torch.device:
        return next(next(iter(self.networks.values())).parameters()).device

    @property
    def at_once(self) -> int:
        """Rows whose inputs and outputs may be in memory together: some passes' worth."""
        return 4 * self.most

    def share(self, count: int) -> range:
        """This worker's part of rows 0 to count - 1; may be empty."""
        return share(self.sync, count)

    def pieces(self, share: range) -> Iterator[range]:
        """A share in pieces of `at_once` rows, the last one as long as is left."""
        for start in range(0, len(share), self.at_once):
            yield share[start : start + self.at_once]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [N, ...] of all workers' shares, in their order; alike on every worker."""
        return self.sync.gather(rows)

    def run(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """function(*inputs) in passes of at most `most` rows: float32, on the device.

        inputs: each [N, ...] with the same N, at least 1; the function gives [N, ...] for them,
        row by row. With `sizes`, a row gives the same bits whatever rides beside it.
        """
        rows = {str(i): each for i, each in enumerate(inputs)}
        return self.columns(lambda part: {"made": function(*part.values())}, rows)["made"]

    def rows(self, compute: Callable[[Rows], Rows], rows: Rows, most: int | None = None) -> Rows:
        """As `run`, of named rows. most: rows in one pass, in place of `self.most`."""
        columns = cast("dict[str, Tensor]", rows)
        return cast(Rows, self.columns(cast(Compute, compute), columns, most))

    def establish(self, *examples: tuple[Callable[[Rows], Rows], Rows]) -> Self:
        """With the `sizes` that give the same bits on this machine, tried by passes when wanted.

        examples: what will be computed, each with `most` rows.
        """
        every = [(cast(Compute, one), cast("dict[str, Tensor]", rows)) for one, rows in examples]
        assert all(len(each) == self.most for _, rows in every for each in rows.values())
        return replace(self, sizes=Sizes(self.most, self._once, every))

    def columns(
        self, compute: Compute, rows: dict[str, Tensor], most: int | None = None
    ) -> dict[str, Tensor]:
        """As `rows`, of columns of any names."""
        most = most or self.most
        parts: list[dict[str, Tensor]] = []
        start, count = 0, len(next(iter(rows.values())))
        for number, size in division(count, self.sizes, most):
            taken = {
                name: filled(each[start : start + number], size) for name, each in rows.items()
            }
            made = self._once(compute, taken)
            parts.append({name: each[:number] for name, each in made.items()})
            start += number
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _once(self, compute: Compute, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.precision == "float32":
            return {name: each.float() for name, each in compute(rows).items()}
        with torch.autocast(self.device.type, torch.bfloat16):
            return {name: each.float() for name, each in compute(rows).items()}


def latents(seeds: Tensor, dimensions: int) -> Tensor:
    """Latents float32 [N, dimensions] of seeds int64 [N]; each depends on its own seed alone."""
    return rng.normal(rng.fold(seeds, LATENTS), (dimensions,))


def classes_of(seeds: Tensor, count: int, shares: Sequence[float] = ()) -> Tensor:
    """int64 [N]: the class, of `count`, of images of seeds int64 [N] where none is asked for.

    Each depends on its own seed alone.

    shares: how likely each class is, but for a common factor; empty: all alike
    """
    keys = rng.fold(seeds, CLASSES)
    if not shares:
        return rng.integers(keys, count)
    bounds = torch.tensor(shares, dtype=torch.float64, device=seeds.device).cumsum(0)
    places = rng.uniform(keys).double() * bounds[-1]
    return torch.searchsorted(bounds, places, right=True)


def prepared(network: nn.Module, precision: Precision) -> nn.Module:
    """A network in evaluation mode made ready to be run often, in place.

    Batch normalisation becomes part of the convolutions before it, the branches of one that is
    re-parameterised become one, and in bfloat16 convolutions keep their weights so, which autocast
    would cast at each pass. Dense layers stay in float32 (see genimg.models.rows.Linear). On CPUs
    the weights of convolutions are packed.
    """
    fold(network)
    for part in network.modules():
        if isinstance(part, nn.Sequential):
            fold_normalisation(part)
    for part in network.modules():
        convolution = isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
        dense = isinstance(part, FirstConvTranspose2d)
        if precision == "bfloat16" and convolution and not dense:
            part.to(torch.bfloat16)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pack(network)
    return network


def fold_normalisation(layers: nn.Sequential) -> None:
    """Scale and shift each convolution as the batch normalisation behind it would."""
    for i in range(1, len(layers)):
        before, norm = layers[i - 1], layers[i]
        if isinstance(norm, nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(before, nn.ConvTranspose2d)
            layers[i - 1] = fuse_conv_bn_eval(before, norm, transpose=transposed)
            layers[i] = nn.Identity()


def real_images(
    data: Dataset, indices: Sequence[int] | np.ndarray, device: torch.device | str = "cpu"
) -> Tensor:
    """The dataset's images at `indices` as uint8 [N, C, size, size] on the device."""
    numbers = np.asarray(indices, np.int64)
    if not len(numbers):  # a worker's share may be empty
        return torch.empty(0, data.channels, data.size, data.size, dtype=torch.uint8, device=device)
    keys = rng.fold(0, torch.from_numpy(numbers)).to(device)
    return data.fetch(numbers, keys)["image"].to(device)


def to_floats(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [N, C, H, W] -> float32 in [-1, 1] on the device, channels last."""
    floats = images.to(device).to(torch.float32, memory_format=torch.channels_last)
    return floats.mul_(2 / 255).sub_(1)
