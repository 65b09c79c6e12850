"""Random numbers as a pure function of (key, counter), vectorised over keys.

A key is an int64. The loader gives every image of every global batch a key of its own, made of
the seed and the image's position; latents, noise, crops and flips all follow from that key. So a
run draws the same numbers on 1 or 64 workers, resumed or not, and no generator state is stored.

The generator is SplitMix64 (Steele, Lea, Flood 2014): a Weyl sequence through Stafford's mix13.
Integer arithmetic wraps at 64 bits alike on CPU and GPU.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_WORD = 2**64 - 1


def _mix(x: Tensor) -> Tensor:
    """Stafford's mix13 finaliser; torch shifts int64 arithmetically, hence the masks."""
    x = (x >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(x).mul_(_MIX1)
    x = (x >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(x).mul_(_MIX2)
    return (x >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(x)


def _mix_integer(x: int) -> int:
    """_mix of one Python integer, unsigned: a tensor of one number takes a hundred times longer."""
    x = (x ^ (x >> 30)) * _MIX1 & _WORD
    x = (x ^ (x >> 27)) * _MIX2 & _WORD
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    """An integer wrapped to 64 bits, as a tensor would."""
    return ((x + 2**63) & _WORD) - 2**63


def fold(keys: Tensor | int, *data: Tensor | int) -> Tensor:
    """New keys (int64, broadcast shape) from keys and more integers, e.g. a seed and positions."""
    out = torch.as_tensor(keys, dtype=torch.int64)
    for item in data:
        if isinstance(item, Tensor):
            step: Tensor | int = _GOLDEN * ((item.to(out.device) if out.dim() else item) + 1)
        else:  # no tensor, which a GPU would have to wait for
            step = _signed(_GOLDEN * (int(item) + 1))
        out = _mix(_mix(out) + step)
    return out


def seed_from(*data: int) -> int:
    """One non-negative Python integer below 2**63 from several, to seed other generators with."""
    first, *rest = map(int, data)
    word = first & _WORD
    for item in rest:
        word = _mix_integer((_mix_integer(word) + _GOLDEN * (item + 1)) & _WORD)
    return word & 0x7FFFFFFFFFFFFFFF


def _bits(keys: Tensor, count: int) -> Tensor:
    """int64 [N, count]: `count` words a key."""
    counter = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * _GOLDEN
    return _mix(_mix(keys)[:, None] + counter)


def uniform(keys: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """float32 [N, *shape] in [0, 1) for keys int64 [N]."""
    words = _bits(keys, math.prod(shape))
    return (((words >> 40) & 0xFFFFFF).float() * 2.0**-24).reshape(len(keys), *shape)


def integers(keys: Tensor, high: int | Tensor, shape: Sequence[int] = ()) -> Tensor:
    """int64 [N, *shape] in [0, high); `high` below 2**31 may be a tensor that broadcasts."""
    words = (_bits(keys, math.prod(shape)) >> 32) & 0xFFFFFFFF
    return (words.reshape(len(keys), *shape) * high) >> 32


def normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """float32 [N, *shape] of standard normals for keys int64 [N] (Box and Muller 1958)."""
    count = math.prod(shape)
    words = _bits(keys, (count + 1) // 2)
    upper = (words >> 40).bitwise_and_(0xFFFFFF).add_(1).float()
    radius = upper.mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = words.bitwise_and_(0xFFFFFF).float().mul_(2.0**-24 * 2 * math.pi)
    both = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)
    return both[:, :count].reshape(len(keys), *shape)
