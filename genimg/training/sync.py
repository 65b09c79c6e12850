"""How workers agree: alone, or by all-reduce over torch.distributed in flattened buckets."""

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genimg.contracts import Sync

_BUCKET_BYTES = 25 * 2**20


class Alone:
    """One worker: there is nobody to agree with."""

    rank = 0
    world = 1

    def gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        pass

    def mean(self, values: Tensor, share: float) -> Tensor:
        return values.detach()

    def gather(self, rows: Tensor) -> Tensor:
        return rows.detach()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        pass


class Collective:
    """All workers of the default process group.

    Explicit, where DistributedDataParallel hooks into the backward pass: alternating updates,
    penalties with double backward and lazy regularisation stay correct.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()

    def gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        self._sum([p.grad for p in parameters if p.grad is not None], share)

    def mean(self, values: Tensor, share: float) -> Tensor:
        out = values.detach() * share
        dist.all_reduce(out)
        return out

    def gather(self, rows: Tensor) -> Tensor:
        mine = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(counts, mine)
        lengths = [int(count) for count in torch.cat(counts).tolist()]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        small: list[Tensor] = []
        for tensor in tensors:
            if tensor.nbytes < _BUCKET_BYTES or not _is_dense(tensor):
                small.append(tensor.detach())
                continue
            memory = tensor.detach().as_strided((tensor.numel(),), (1,))  # laid out alike on all
            for part in memory.split(_BUCKET_BYTES // tensor.element_size()):
                dist.broadcast(part.view(torch.uint8), src=0)
        for bucket in _buckets(small):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.broadcast(flat.view(torch.uint8), src=0)  # bytes: any dtype, and -0.0 and NaN too
            parts = flat.split([tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [p.view_as(t) for p, t in zip(parts, bucket, strict=True)])

    @torch.no_grad()
    def _sum(self, tensors: list[Tensor], weight: float) -> None:
        """Replace each tensor, in place, by the weighted sum over the workers."""
        if self.world == 1:  # with all the weight: the sum is what is there
            return
        pending = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket]).mul_(weight)
            pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in pending:
            work.wait()
            parts = flat.split([tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [p.view_as(t) for p, t in zip(parts, bucket, strict=True)])


def share(sync: Sync, count: int) -> range:
    """This worker's part of rows 0 to count - 1, all about as large; may be empty."""
    return range(count * sync.rank // sync.world, count * (sync.rank + 1) // sync.world)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype gathered up to the size at which bandwidth outweighs latency."""
    for dtype in {t.dtype: None for t in tensors}:
        bucket: list[Tensor] = []
        size = 0
        for tensor in (t for t in tensors if t.dtype == dtype):
            bucket.append(tensor)
            size += tensor.nbytes
            if size >= _BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
        if bucket:
            yield bucket


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's elements fill one piece of memory, in either order of channels."""
    return tensor.is_contiguous() or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
