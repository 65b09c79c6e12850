"""The one place that runs networks for inference: passes, precision, the workers' shares."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
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
from genimg.precision import Precision
from genimg.training.sync import Alone, share

if TYPE_CHECKING:
    from genimg.engine import Engine

_Compute = Callable[[dict[str, Tensor]], dict[str, Tensor]]  # rows of any names

LATENTS, CLASSES = 21, 22  # tags under which an image's seed gives its latents, and its class
CHUNK = 64  # rows in one forward pass, at most
PASS_PIXELS = {"cpu": 2**18, "cuda": 2**22}  # of images in one pass, at most
PROBED = (*range(1, 17), 32, CHUNK)  # sizes of passes that are tried before they are relied on
PACES = (16, 32, CHUNK, 3 * CHUNK, 16 * CHUNK)  # sizes of which one is the fastest, for many rows
TRIES = 3  # of each size: the first pass warms up
FASTER = 0.95  # of the usual size's time: what is less may be chance
TRIED_OF = 4  # sizes are tried where at least so many passes of them are left


@lru_cache(1024)  # asked for each pass, of which small networks make thousands a second
def rows_at_once(pixels: int, device: torch.device) -> int:
    """Rows in one pass, at most, where a row is an image of so many pixels: bounds its memory."""
    most = min(CHUNK, fitting(pixels, device))
    return max((size for size in PROBED if size <= most), default=1)  # which needs no second pass


def fitting(pixels: int, device: torch.device) -> int:
    """Images of so many pixels that fit into a pass."""
    return PASS_PIXELS.get(device.type, PASS_PIXELS["cuda"]) // pixels


class Pace:
    """Finds out, while many rows are computed, in passes of what size that goes fastest.

    More rows share what a pass costs by itself; but what lies between layers may then be too much
    for a processor's cache, or for memory that is kept from pass to pass. Which weighs more depends
    on the network and the machine.

    usual: the size until that is found out
    others: to choose from as well, by the fastest of a few passes: the smaller ones, and of the
        larger ones those before which none was slower than a smaller one.
    """

    def __init__(self, usual: int, others: Sequence[int] = ()) -> None:
        self.usual = usual
        smaller = sorted((size for size in others if size < usual), reverse=True)
        larger = sorted(size for size in others if size > usual)
        order = [usual, *smaller, *larger] if others else []
        self._untried = [size for size in order for _ in range(TRIES)]
        self._seconds: dict[int, float] = {}  # for a row
        self._lock = threading.Lock()

    def size(self, left: int) -> int:
        """Of the next pass, where so many rows are left."""
        with self._lock:
            if self._untried:
                few = TRIED_OF * self._untried[0] > left
                return self._best() if few else self._untried[0]
        return self._best()

    def _best(self) -> int:
        best = min(self._seconds, key=self._seconds.__getitem__, default=self.usual)
        clearly = best in self._seconds and self._seconds[best] < FASTER * self._seconds[self.usual]
        return best if clearly else self.usual

    @contextmanager
    def timed(self, rows: int) -> Iterator[None]:
        """Around a pass of so many rows; where it fails, none so large is asked for again."""
        began = time.perf_counter()
        try:
            yield
        except (RuntimeError, MemoryError):
            self.failed(rows)
            raise
        self.took(rows, time.perf_counter() - began)

    def failed(self, rows: int) -> None:
        with self._lock:
            if rows > self.usual:
                self._untried = [size for size in self._untried if size < rows]
                self._seconds = {n: each for n, each in self._seconds.items() if n < rows}

    def took(self, rows: int, seconds: float) -> None:
        with self._lock:
            if not self._untried or rows != self._untried[0]:
                return
            self._seconds[rows] = min(seconds / rows, self._seconds.get(rows, math.inf))
            del self._untried[0]
            largest = max(self._seconds)
            if self._untried and self._untried[0] > largest > self._best():
                self._untried.clear()


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
        return cast(Rows, self.columns(cast(_Compute, compute), columns, most))

    def establish(self, *examples: tuple[Callable[[Rows], Rows], Rows]) -> Self:
        """With the `sizes` that give the same bits on this machine, tried by passes when wanted.

        examples: what will be computed, each with `most` rows.
        """
        every = [(cast(_Compute, one), cast("dict[str, Tensor]", rows)) for one, rows in examples]
        assert all(len(each) == self.most for _, rows in every for each in rows.values())
        return replace(self, sizes=Sizes(self.most, self._once, every))

    def columns(
        self, compute: _Compute, rows: dict[str, Tensor], most: int | None = None
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
    def _once(self, compute: _Compute, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.precision == "float32":
            return {name: each.float() for name, each in compute(rows).items()}
        with torch.autocast(self.device.type, torch.bfloat16):
            return {name: each.float() for name, each in compute(rows).items()}


class Sizes:
    """Sizes of passes that give a row the same bits on this machine.

    Numerical libraries choose their kernels by the size of a pass, by the hardware and by its
    settings. A full pass counts as right; a smaller one is compared with it when it is first
    wanted: a program that restores one image need not wait for what others need. So is a larger
    one, of PACES.
    """

    def __init__(
        self,
        most: int,
        once: Callable[[_Compute, dict[str, Tensor]], dict[str, Tensor]],
        examples: Sequence[tuple[_Compute, dict[str, Tensor]]],
    ) -> None:
        """once: makes a pass. examples: what is computed in passes, with rows for a full one"""
        self.tried = tuple(size for size in PROBED if size < most)
        self.full = most
        self._once = once
        self._examples = examples
        self._expected: list[dict[str, Tensor]] = []
        self._agree = {most: True}
        self._best: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def agrees(self, size: int) -> bool:
        with self._lock:
            if size not in self._agree:
                self._expected = self._expected or [self._once(*each) for each in self._examples]
                self._agree[size] = all(
                    self._agrees(size, *both)
                    for both in zip(self._examples, self._expected, strict=True)
                )
            return self._agree[size]

    def all(self) -> tuple[int, ...]:
        """Every size that agrees, ascending; all are tried."""
        for size in self.tried:
            self.agrees(size)
        return tuple(sorted(size for size, agrees in self._agree.items() if agrees))

    def best(self, count: int, most: int) -> int:
        """The largest size for at most `count` rows, or the smallest for more, up to `most`."""
        if (count, most) not in self._best:
            self._best[count, most] = self._found(count, most)
        return self._best[count, most]

    def _found(self, count: int, most: int) -> int:
        larger = (size for size in PACES if size > self.full)
        sizes = [size for size in (*self.tried, self.full, *larger) if size <= most]
        fitting = [size for size in sizes if size <= count]
        for size in (*fitting[::-1], *sizes[len(fitting) :]):
            if self.agrees(size):
                return size
        return min(most, self.full)  # all passes have this one, then

    def _agrees(
        self,
        size: int,
        example: tuple[_Compute, dict[str, Tensor]],
        expected: dict[str, Tensor],
    ) -> bool:
        """Whether rows that stood last in the full pass come out alike where they stand first; in a
        larger one, again and again."""
        compute, rows = example
        made = self._once(compute, {name: last(each, size) for name, each in rows.items()})
        return all(torch.equal(each, last(expected[name], size)) for name, each in made.items())


def last(rows: Tensor, count: int) -> Tensor:
    """The last `count` of rows [N, ...] that come again and again."""
    times = -(-count // len(rows))
    return (torch.cat([rows] * times) if times > 1 else rows)[-count:]


def division(count: int, sizes: Sizes | None, most: int = CHUNK) -> Iterator[tuple[int, int]]:
    """`count` rows in passes: (rows, size) of each, the size being one of `sizes` if given.

    The largest that fits comes first; only where none does is a pass larger than its rows.
    """
    while count:
        size = min(count, most) if sizes is None else sizes.best(count, most)
        rows = min(count, size)
        yield rows, size
        count -= rows


def filled(rows: Tensor, size: int) -> Tensor:
    """Rows [N, ...] and the first of them again, up to `size`."""
    missing = size - len(rows)
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows


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
