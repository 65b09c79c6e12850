"""The layers of NAFNet against what they are by definition, and its size."""

import itertools

import pytest
import torch

from genimg.inference import prepared
from genimg.models.nafnet import Block, ChannelAttention, LayerNorm2d, NAFNet, box_mean


@pytest.mark.parametrize("window", [1, 3, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 1), (2, 3), (8, 8), (13, 22)])
def test_box_means_are_those_of_what_is_inside(window, height, width):
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    half = window // 2
    for i, j in itertools.product(range(height), range(width)):
        box = x[..., max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
        torch.testing.assert_close(box_mean(x, window)[..., i, j], box.mean([2, 3]))


def test_layer_norm_is_over_the_channels_of_each_pixel():
    x = torch.randn(2, 16, 3, 5) * 3 + 1
    made = LayerNorm2d(16)(x)
    expected = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, correction=0).sqrt()
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_channel_attention_over_the_whole_image_is_that_of_the_paper():
    x, attention = torch.randn(2, 8, 5, 6), ChannelAttention(8, 13)
    torch.testing.assert_close(attention(x), x * attention.scale(x.mean([2, 3], keepdim=True)))


def test_nafnet_has_the_size_of_its_paper():
    network = NAFNet(32, (2, 2, 4, 8), 12, (2, 2, 2, 2), 3, 0)  # for denoising SIDD
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(29.16e6, rel=1e-3)
    blocks = [p for key, p in network.named_parameters() if key.endswith(("beta", "gamma"))]
    assert len(blocks) == 2 * 36
    assert not any(p.any() for p in blocks)


def test_in_bfloat16_blocks_keep_to_it():
    """What comes out of a block is in memory for every pixel of an image."""
    block = prepared(Block(8, 3).eval().requires_grad_(False), "bfloat16")
    images = torch.randn(1, 8, 6, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert block(images).dtype == torch.bfloat16
