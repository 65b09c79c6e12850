"""Batch normalisation over a divided batch. What several workers make of it is in test_sync."""

import copy

import pytest
import torch
from torch import nn

from genimg.contracts import Division
from genimg.models.batch_norm import BatchNorm2d

UNDIVIDED = Division(1.0, lambda values: values)


def pair() -> tuple[nn.BatchNorm2d, BatchNorm2d]:
    """PyTorch's and ours in the divided mode, with the same weights."""
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(5), BatchNorm2d(5)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    ours.division = UNDIVIDED
    return theirs, ours


def results(norm: nn.Module, images: torch.Tensor, wanted: torch.Tensor) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    output = norm(images)
    (output.float() - wanted).square().sum().backward()
    return [output, images.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("centre", [0.0, 3.0, 200.0])
def test_alone_in_a_divided_batch_it_computes_what_pytorch_does(precision, layout, centre):
    images = (2 * torch.randn(6, 5, 4, 4) + centre).to(precision).to(memory_format=layout)
    wanted = torch.randn(images.shape)
    exact = 1e-2 if precision == torch.bfloat16 else 1e-4
    theirs, ours = pair()
    for norm in (theirs, ours):
        norm.train()
    for expected, got in zip(
        results(theirs, images, wanted), results(ours, images, wanted), strict=True
    ):
        assert (got.dtype, got.stride()) == (expected.dtype, expected.stride())
        largest = expected.abs().max().item()
        torch.testing.assert_close(got, expected, rtol=exact, atol=exact * largest)


def test_a_channel_without_contrast_becomes_its_shift():
    _, norm = pair()
    images = torch.full((4, 5, 2, 2), 7.0, requires_grad=True)
    output = norm(images)
    torch.testing.assert_close(
        output, norm.bias[:, None, None].expand_as(output), rtol=0, atol=1e-2
    )
    output.sum().backward()
    assert images.grad.isfinite().all()


def test_undivided_or_in_evaluation_it_is_pytorchs_own_to_the_bit():
    theirs, ours = pair()
    images = torch.randn(6, 5, 4, 4)
    ours.division = None
    assert torch.equal(ours(images), theirs(images))
    ours.division = UNDIVIDED
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert copy.deepcopy(ours).state_dict().keys() == theirs.state_dict().keys()
