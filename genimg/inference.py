"""The one place that runs networks for inference: passes, precision, the workers' shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Dataset, Sync
from genimg.training.sync import Alone

Precision = Literal["float32", "bfloat16"]

LATENTS = 21  # tag under which an image's seed gives its latents
CHUNK = 64  # images in one forward pass, at most
FEWEST = 4  # rows in one forward pass; matrix products of 1 and 2 take kernels of their own


@dataclass(frozen=True)
class Inference:
    """Networks in evaluation mode on one device, how they compute, and with whom.

    What recipes evaluate, and what engines are made of. All workers of a training evaluate
    together: each computes its `share` of the rows and `gather` gives everyone those of all.
    """

    networks: dict[str, nn.Module]
    precision: Precision = "float32"
    sync: Sync = Alone()  # noqa: RUF009  (it holds nothing)

    @property
    def device(self) -> torch.device:
        return next(next(iter(self.networks.values())).parameters()).device

    def share(self, count: int) -> range:
        """This worker's part of rows 0 to count - 1; may be empty."""
        rank, world = self.sync.rank, self.sync.world
        return range(count * rank // world, count * (rank + 1) // world)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [N, ...] of all workers' shares, in their order; alike on every worker."""
        return self.sync.gather(rows)

    @torch.no_grad()
    def run(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """function(inputs) in passes of at most CHUNK rows: float32, on the device.

        inputs: [N, ...]. A row gives the same bits whatever rides beside it.
        """
        return in_chunks(function, inputs)


def latents(seeds: Tensor, dimensions: int) -> Tensor:
    """Latents float32 [N, dimensions] of seeds int64 [N]; each depends on its own seed alone."""
    return rng.normal(rng.fold(seeds, LATENTS), (dimensions,))


def in_chunks(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """function(inputs) for inputs [N, ...] in passes of at most CHUNK rows, on the CPU in float32.

    Each pass is padded to a power of two, at least FEWEST: numerical libraries choose other
    kernels for odd and for very small batches, and a row should give the same bits whatever batch
    it rides in.
    """
    outputs = []
    for rows in inputs.split(CHUNK):
        padding = max(FEWEST, 1 << (len(rows) - 1).bit_length()) - len(rows)
        padded = torch.cat([rows, rows[:1].expand(padding, *rows.shape[1:])]) if padding else rows
        outputs.append(function(padded)[: len(rows)].float().cpu())
    return torch.cat(outputs)


@torch.no_grad()
def generated_from(
    generator: Callable[[Tensor], Tensor],
    dimensions: int,
    seeds: Tensor,
    truncation: float | Tensor = 1.0,
) -> Tensor:
    """float32 [N, C, H, W] in [-1, 1] on the CPU: the images of seeds int64 [N].

    truncation: factor on the latents, or float32 [N, 1] with one for each image.
    """
    return in_chunks(generator, latents(seeds, dimensions) * truncation)


def real_images(
    data: Dataset, indices: Sequence[int] | np.ndarray, device: torch.device | str = "cpu"
) -> Tensor:
    """The dataset's images at `indices` as uint8 [N, C, size, size] on the device."""
    numbers = np.asarray(indices, np.int64)
    if not len(numbers):  # a worker's share may be empty
        return torch.empty(0, data.channels, data.size, data.size, dtype=torch.uint8, device=device)
    images, _ = data.fetch(numbers, rng.fold(0, torch.from_numpy(numbers)).to(device))
    return images.to(device)


def to_floats(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [N, C, H, W] -> float32 in [-1, 1] on the device, channels last."""
    floats = images.to(device).to(torch.float32, memory_format=torch.channels_last)
    return floats.mul_(2 / 255).sub_(1)
