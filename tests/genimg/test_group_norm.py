"""Group normalisation that is computed in float32 gives what PyTorch's own gives."""

import pytest
import torch
from torch import nn

from genimg.models.group_norm import LARGE, GroupNorm


@pytest.mark.parametrize("side", [4, 16, int(LARGE**0.5) + 1])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16_it_errs_no_more_than_rounding(side, layout):
    torch.manual_seed(0)
    maps = (torch.randn(3, 16, side, side) * 3 + 2).to(memory_format=layout)
    own, exact = GroupNorm(4, 16), nn.GroupNorm(4, 16).double()
    nn.init.normal_(own.weight)
    nn.init.normal_(own.bias)
    exact.load_state_dict(own.state_dict())
    low = maps.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        made = own(low)
    assert made.dtype == torch.bfloat16
    assert made.is_contiguous(memory_format=layout)
    assert made.is_contiguous(memory_format=torch.channels_last) == low.is_contiguous(
        memory_format=torch.channels_last
    )
    torch.testing.assert_close(made.double(), exact(low.double()), rtol=2e-2, atol=2e-2)


def test_gradients_come_through_in_either_precision():
    torch.manual_seed(0)
    own = GroupNorm(4, 16)
    maps = torch.randn(3, 16, 8, 8).bfloat16().float()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        given = maps.to(dtype, copy=True).detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            own(given).float().square().sum().backward()
        assert given.grad is not None
        found.append(given.grad.float())
    torch.testing.assert_close(*found, rtol=5e-2, atol=5e-2)


def test_in_float32_it_is_torchs_own():
    torch.manual_seed(0)
    maps, theirs = torch.randn(3, 16, 8, 8), nn.GroupNorm(4, 16)
    assert torch.equal(GroupNorm(4, 16)(maps), theirs(maps))
