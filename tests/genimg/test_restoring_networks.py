"""Networks that restore: sides of any length, how far they see, tiles, folding, how they start."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genimg.inference import prepared
from genimg.models.denoising import DnCNN, FFDNet
from genimg.models.drunet import DRUNet
from genimg.models.gated import Gated, GatedUNet
from genimg.models.nafnet import NAFNet
from genimg.models.restoring import RestoringNetwork, constant_maps, receptive_field
from genimg.models.translating import TranslatingResNet, TranslatingUNet
from genimg.models.upscaling import BESIDE, EDSR, Plain, RepConv, added, folded
from genimg.tiles import tiled

NETWORKS: dict[str, Callable[[], RestoringNetwork]] = {
    "ffdnet": lambda: FFDNet(8, 2, 3),
    "dncnn": lambda: DnCNN(8, 4, 1),
    "dncnn with maps": lambda: DnCNN(8, 4, 1, maps=2),
    "drunet": lambda: DRUNet(8, 2, 1, 1, 2),
    "drunet, blind": lambda: DRUNet(8, 3, 1, 3, 0),
    "drunet, flat": lambda: DRUNet(8, 0, 2, 3, 1),
    "nafnet": lambda: NAFNet(8, (1, 1), 1, (1, 1), 3, 1, window=3),
    "nafnet, uneven": lambda: NAFNet(8, (2,), 0, (1,), 1, 0, window=5),
    "gated": lambda: GatedUNet(8, 2, 1, 3, 1),
    "gated, flat": lambda: GatedUNet(8, 0, 1, 1, 0),
    "unet": lambda: TranslatingUNet(8, 2, 3, 1),
    "resnet": lambda: TranslatingResNet(8, 2, 2, 3, 0),
    "resnet, flat": lambda: TranslatingResNet(8, 0, 1, 1, 2),
    "plain": lambda: Plain(8, 2, 3),
    "plain, half": lambda: Plain(8, 2, 1, maps=1, unshuffle=2),
    "plain x2": lambda: Plain(8, 1, 3, scale=2),
    "plain x3": lambda: Plain(8, 1, 1, maps=1, scale=3),
    "plain x4": lambda: Plain(8, 2, 1, scale=4),
    "plain x2, half": lambda: Plain(8, 1, 1, scale=2, unshuffle=2),
    "edsr x2": lambda: EDSR(8, 1, 1, 2),
    "edsr x3": lambda: EDSR(8, 1, 3, 3, residual_scale=0.1, maps=1),
    "edsr x4": lambda: EDSR(8, 1, 1, 4),
}
EXACT = [name for name in NETWORKS if name.startswith(("dncnn", "plain", "ffdnet"))]
every_network = pytest.mark.parametrize("name", NETWORKS)
sides = pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 7), (5, 1), (2, 3), (8, 8), (13, 22)]
)


def busy(name: str) -> RestoringNetwork:
    """One of which no weight is zero, so that everything that it could see it does."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(
    network: RestoringNetwork, height: int, width: int, count: int = 1
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, network.channels, height, width, generator=generator) * 2 - 1
    return [images, torch.rand(count, network.maps, height, width, generator=generator)]


@every_network
@sides
def test_any_sides_are_taken_and_an_image_is_alone_in_its_batch(name, height, width):
    network = busy(name).requires_grad_(False)
    images, maps = inputs(network, height, width, 3)
    restored = network(images, maps)
    assert restored.shape == (3, network.channels, network.scale * height, network.scale * width)
    alone = torch.cat([network(images[i, None], maps[i, None]) for i in range(3)])
    scale = max(1, float(restored.abs().max()))
    torch.testing.assert_close(alone / scale, restored / scale, rtol=0, atol=1e-5)


@every_network
@sides
def test_networks_start_as_the_identity_or_as_interpolation(name, height, width):
    if name.startswith(("dncnn", "unet")):
        pytest.skip("starts with the weights of its paper")
    network = NETWORKS[name]()
    images, maps = inputs(network, height, width)
    expected = images
    if network.scale > 1:
        larger = [network.scale * side for side in (height, width)]
        expected = F.interpolate(images, larger, mode="bilinear")
    made = network(images, maps)
    if network.scale > 1 and network.stride > 1:  # beyond odd sides it sees the image mirrored
        height, width = (network.scale * (side - side % 2) - 1 for side in (height, width))
        made, expected = made[..., :height, :width], expected[..., :height, :width]
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


@every_network
def test_sides_that_are_no_multiple_of_the_stride_are_as_if_the_border_were_a_mirror(name):
    network = busy(name)
    known = inputs(network, 9, 11)
    wider = [-9 % network.stride, -11 % network.stride]
    down = [*range(9), *range(7, 7 - wider[0], -1)]
    across = [*range(11), *range(9, 9 - wider[1], -1)]
    mirrored = [each[..., down, :][..., across] for each in known]
    scale = network.scale
    expected = network(*mirrored)[..., : 9 * scale, : 11 * scale]
    torch.testing.assert_close(network(*known), expected)


def seen_across(network: RestoringNetwork, axis: int) -> int:
    """Pixels of the input, along an axis, that a pixel of the result depends on, at most."""
    half = network.receptive_field // 2 + 2 * network.stride
    middle = -(-half // network.stride) * network.stride
    long = [network.stride, network.stride]
    long[axis] = 2 * middle + network.stride
    images, maps = (each.double().requires_grad_() for each in inputs(network, *long))
    restored = network.double()(images, maps)
    widest = 0
    for place in range(network.scale * middle, network.scale * (middle + network.stride)):
        pixels = restored.movedim(2 + axis, 0)[place].square().sum()
        seen = torch.autograd.grad(
            pixels, [images, maps], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        touched = torch.cat(seen, 1).abs().sum([0, 1, 3 - axis]).nonzero()[:, 0]
        assert touched.min() > 0, "the image should reach further than is seen"
        assert touched.max() < long[axis] - 1
        widest = max(widest, int(touched.max() - touched.min()) + 1)
    return widest


@every_network
@pytest.mark.parametrize("axis", [0, 1])
def test_networks_see_as_far_as_they_say(name, axis):
    network = busy(name)
    seen = seen_across(network, axis)
    assert seen <= network.receptive_field
    if name in EXACT:
        assert seen == network.receptive_field
    else:  # a claim of twice as much would make tiles slow
        assert seen > 0.75 * network.receptive_field


def test_receptive_fields_of_small_stacks_counted_by_hand():
    assert receptive_field((1, 3)) == 7
    assert receptive_field((2, 1)) == 6  # three cells of two pixels
    # 1, at half resolution 1, 1 again: of six cells 0 to 5, where 2 or 3 is looked at from 1 to 4
    assert receptive_field((1, 1), (2, 1), (1, 1)) == 2 * 4 + 2
    assert receptive_field((2, 1), (1, 1), scale=2) == 4  # x2: one conv before, one after
    # the middle one of three pixels, and two more to either side: of three of the input
    assert receptive_field((3, 0), (1, 2), scale=3) == 3


def tiles_of(network: RestoringNetwork, images, maps, side: int) -> torch.Tensor:
    """The result in tiles of `side`, each pixel's scale x scale results as planes of one."""
    scale, channels = network.scale, network.channels
    planes = max(channels * scale**2, channels + network.maps)
    known = torch.cat([images, maps], 1)
    known = F.pad(known, (0, 0, 0, 0, 0, planes - known.shape[1]))

    def function(tiles: torch.Tensor) -> torch.Tensor:
        few, its_maps = tiles[:, :channels], tiles[:, channels : channels + network.maps]
        result = F.pixel_unshuffle(network(few, its_maps), scale)
        return F.pad(result, (0, 0, 0, 0, 0, planes - result.shape[1]))

    made = tiled(function, known, side=side, margin=network.margin, stride=network.stride)
    return F.pixel_shuffle(made[:, : channels * scale**2], scale)


@every_network
@settings(max_examples=6)
@given(height=st.integers(1, 70), beyond=st.integers(1, 50), core=st.integers(1, 9))
@torch.no_grad()
def test_tiles_give_what_the_whole_gives(name, height, beyond, core):
    network = busy(name)
    side = 2 * network.margin + network.stride * core
    images, maps = inputs(network, height, side + beyond)
    whole = network(images, maps)
    scale = max(1, float(whole.abs().max()))
    in_tiles = tiles_of(network, images, maps, side)
    torch.testing.assert_close(in_tiles / scale, whole / scale, rtol=0, atol=1e-5)


@every_network
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_reach_every_parameter(name, precision):
    network = busy(name).train().to(memory_format=torch.channels_last)
    images, maps = inputs(network, 17, 18, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        network(images, maps).float().square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert (parameter.grad != 0).float().mean() > 0.5, key


@every_network
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_a_network_prepared_for_inference_computes_what_it_did_before(name, precision):
    network = busy(name).requires_grad_(False)
    images, maps = inputs(network, 24, 20, 2)
    expected = network(images, maps)
    ready = prepared(copy.deepcopy(network), precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        made = ready(images, maps).float()
    error = ((made - expected).square().mean() / expected.square().mean()).sqrt()
    assert error < (1e-5 if precision == "float32" else 0.05)


def test_ffdnet_keeps_the_names_and_shapes_of_checkpoints():
    before = {"body.0": (8, 13, 3, 3), "body.3": (12, 8, 3, 3)}
    before |= {f"body.1.{name}": (8, 8, 3, 3) for name in ("first", "second")}
    state = FFDNet(8, 1, 3).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        f"{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in before.items()
        for kind in ("weight", "bias")
    }


@torch.no_grad()
def test_ffdnet_is_told_a_constant_level_to_the_last_bit():
    network = busy("ffdnet")
    told = []
    network.body[0].register_forward_pre_hook(lambda module, args: told.append(args[0][:, 12:]))
    sigma = torch.rand(64, generator=torch.Generator().manual_seed(3)) * 55 / 255
    images, maps = torch.rand(64, 3, 5, 4), torch.rand(1, 1, 6, 8)
    network(images, constant_maps(sigma[:, None], images))
    assert torch.equal(told[0], sigma[:, None, None, None].expand(64, 1, 3, 2))
    network(torch.rand(1, 3, 6, 8), maps)  # and the mean of one that is not constant
    torch.testing.assert_close(told[1], F.avg_pool2d(maps, 2))


@settings(max_examples=10)
@given(factor=st.floats(0.01, 100), height=st.integers(1, 20), width=st.integers(1, 20))
@torch.no_grad()
def test_drunet_of_a_brighter_image_is_brighter_by_as_much(factor, height, width):
    network = busy("drunet").double()
    images, maps = (each.double() for each in inputs(network, height, width))
    expected = factor * network(images, maps)
    torch.testing.assert_close(network(factor * images, factor * maps), expected)


def test_drunet_has_the_size_of_its_paper():
    network = DRUNet(64, 3, 4, 1, 1)
    assert not any(key.endswith("bias") for key, _ in network.named_parameters())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(32.64e6, rel=1e-3)


def branches(layer: RepConv, x: torch.Tensor) -> torch.Tensor:
    """What the convolution is short for, branch by branch."""
    beside = F.conv2d(x, layer.point[:, :, None, None])
    if layer.identity is not None:
        beside = beside + layer.identity[:, None, None] * x
    expanded = F.conv2d(x, layer.expand[:, :, None, None])
    beside = beside + F.conv2d(expanded, layer.squeeze, padding=1)
    return F.conv2d(x, layer.weight, layer.bias, padding=1) + BESIDE * beside


@pytest.mark.parametrize(("before", "after"), [(5, 5), (3, 8)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_branches_are_one_convolution(before, after, dtype, error):
    torch.manual_seed(0)
    layer = RepConv(before, after).to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, before, 6, 7, dtype=dtype)
    expected = branches(layer, x)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=error)
    torch.testing.assert_close(layer.fold()(x), expected, rtol=0, atol=error)
    wanted = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
    got = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(got, wanted, rtol=100 * error, atol=100 * error)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("plain")])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@torch.no_grad()
def test_folding_a_network_changes_nothing_but_its_layers(name, dtype, error):
    network = busy(name).to(dtype)
    images, maps = (each.to(dtype) for each in inputs(network, 15, 10))
    branched = copy.deepcopy(network)
    for layer in branched.modules():
        if isinstance(layer, RepConv):
            layer.forward = branches.__get__(layer)
    plain = folded(network)
    assert not any(isinstance(layer, RepConv) for layer in plain.modules())
    assert any(isinstance(layer, RepConv) for layer in network.modules())
    expected = branched(images, maps)
    scale = max(1, float(expected.abs().max()))
    torch.testing.assert_close(plain(images, maps) / scale, expected / scale, rtol=0, atol=error)
    again = folded(NETWORKS[name]()).to(dtype).eval()  # a checkpoint of folded weights is read so
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(images, maps), plain(images, maps))


@torch.no_grad()
def test_a_gate_decides_how_much_of_a_feature_there_is():
    gated = Gated(3, 4)
    x = torch.randn(2, 3, 5, 6)
    features, gates = F.conv2d(x, gated.both.weight, gated.both.bias, padding=1).split(4, dim=1)
    expected = torch.where(features > 0, features, features.exp() - 1) / (1 + (-gates).exp())
    torch.testing.assert_close(gated(x), expected)
    gated.both.bias[4:] = -1e4  # closed
    assert (gated(x) == 0).all()
    assert Gated(3, 4, kernel=2)(x[..., :4, :]).shape == (2, 4, 2, 3)


def test_parameters_of_folded_networks():
    def count(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    def convolution(before: int, after: int) -> int:
        return 9 * before * after + after

    small = folded(Plain(48, 8, 1, scale=4))
    assert count(small) == convolution(1, 48) + 16 * convolution(48, 48) + convolution(48, 16)
    half = folded(Plain(64, 8, 1, maps=1, unshuffle=2))
    assert count(half) == convolution(8, 64) + 16 * convolution(64, 64) + convolution(64, 4)
    assert count(EDSR(64, 16, 3, 4)) == 1_517_571  # EDSR's baseline (table 1: 1.5 M)
    assert count(EDSR(64, 16, 3, 2)) == 1_369_859


def test_edsr_scales_its_residuals():
    full, tenth = EDSR(8, 1, 1, 2).body[0], EDSR(8, 1, 1, 2, residual_scale=0.1).body[0]
    tenth.load_state_dict(full.state_dict())
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(tenth(x) - x, (full(x) - x) / 10, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolation_keeps_a_slope_and_the_place_of_pixels(scale):
    x = torch.arange(9.0).expand(1, 1, 2, 9)
    made = added(torch.zeros(1, 1, 2 * scale, 9 * scale), x, scale)[0, 0, 0]
    places = (torch.arange(9 * scale) + 0.5) / scale - 0.5
    torch.testing.assert_close(made, places.clamp(0, 8))
