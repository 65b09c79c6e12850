"""Passes: the same bits for a row in any batch, established on this machine, in both precisions."""

import copy
import itertools
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import tiny
from torch import nn

from genimg.inference import Inference, fold_normalisation, prepared
from genimg.models.draw import DrawVAE
from genimg.models.predicting import Predictor
from genimg.models.quantised import QuantisedAutoencoder
from genimg.models.restoring import RestoringNetwork, constant_maps
from genimg.models.rows import ROWS, Conv2d, FirstConvTranspose2d, Linear
from genimg.models.styling import Stylist
from genimg.models.velocity import VelocityUNet
from genimg.packing import FEW_CHANNELS, Packed, Phases, can_be_packed
from genimg.passes import CHUNK, PROBED, Pace, division, rows_at_once
from genimg.precision import resolved
from genimg.recipes import RECIPES

CPU = torch.device("cpu")
LAYERS = {
    "wide product": (lambda: Linear(2048, 64), (2048,)),
    "small product": (lambda: Linear(8, 10), (8,)),
    "first layer": (lambda: FirstConvTranspose2d(64, 256, 4), (64, 1, 1)),
    "convolution of few numbers": (lambda: Conv2d(16, 8, 3, padding=1), (16, 8, 8)),
    "convolution": (lambda: Conv2d(8, 16, 4, stride=2, padding=1), (8, 32, 32)),
}
precisions = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@precisions
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_a_row_the_same_bits_in_any_batch_and_place(name, precision):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    rows = torch.randn(CHUNK, *shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        expected = torch.cat([layer(row[None]) for row in rows])
        for size in (*range(1, 2 * ROWS), CHUNK):
            for start in {0, CHUNK - size, (CHUNK - size) // 2}:
                part = slice(start, start + size)
                assert torch.equal(layer(rows[part]), expected[part]), (size, start)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_trains_as_the_layer_of_pytorch_that_it_is(name):
    make, shape = LAYERS[name]
    layer = make()
    plain = next(base for base in type(layer).__mro__ if base.__module__.startswith("torch.nn"))
    rows = torch.randn(5, *shape)
    assert torch.equal(layer.train()(rows), plain.forward(layer, rows))
    assert torch.allclose(layer.eval()(rows), plain.forward(layer, rows), rtol=1e-5, atol=1e-5)


@given(
    count=st.integers(0, 300),
    odd_ones=st.none() | st.sets(st.sampled_from(PROBED[:-1])),
)
def test_rows_are_divided_into_passes_of_sizes_that_agree(count, odd_ones):
    sizes = None
    if odd_ones is not None:
        network, rows = Fickle(odd_ones), torch.zeros(CHUNK, 1)
        sizes = Inference({"fickle": network}).establish((of(network), {"latent": rows})).sizes
    passes = list(division(count, sizes))
    assert sum(rows for rows, _ in passes) == count
    assert all(size <= CHUNK and 0 < rows <= size for rows, size in passes)
    assert sizes is None or all(size in sizes.all() for _, size in passes)
    padding = sum(size - rows for rows, size in passes)
    assert padding < (1 if sizes is None else min(sizes.all()))
    assert len(passes) <= count // CHUNK + (1 if sizes is None else CHUNK)


def of(function):
    """A function of tensors as one of rows."""
    return lambda rows: {"latent": function(rows["latent"])}


class Fickle(nn.Module):
    """Rows that come out otherwise in passes of some sizes, as kernels of libraries do."""

    def __init__(self, odd_ones: set[int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.odd_ones = odd_ones

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * self.scale + 1e-6 * (len(rows) in self.odd_ones)


@pytest.mark.parametrize("odd_ones", [set(), {1}, {1, 3, 5, 7, 9, 11, 13, 15}, {*range(CHUNK)}])
def test_sizes_that_disagree_on_this_machine_are_found_out_and_passed_by(odd_ones):
    network, rows = Fickle(odd_ones), torch.randn(CHUNK, 3)
    inference = Inference({"fickle": network}).establish((of(network), {"latent": rows}))
    assert inference.sizes.all() == tuple(size for size in PROBED if size not in odd_ones)
    expected = network(rows)
    for count in (1, 2, 3, 15, 17, 40, CHUNK):
        made = inference.run(network, rows[:count])
        assert torch.equal(made, expected[:count])
        assert not made.requires_grad


def test_a_place_that_changes_the_bits_leaves_only_full_passes():
    network = Fickle(set())
    rows = torch.randn(CHUNK, 3)

    def uneven(some: torch.Tensor) -> torch.Tensor:
        return network(some) + torch.arange(len(some))[:, None]

    inference = Inference({"uneven": network}).establish((of(uneven), {"latent": rows}))
    assert inference.sizes.all() == (CHUNK,)


def test_several_inputs_go_row_by_row_together():
    network = Fickle(set())
    images, level = torch.randn(100, 2, 4), torch.randn(100)
    made = Inference({"a": network}).run(lambda x, s: network(x) + s[:, None, None], images, level)
    assert torch.equal(made, images + level[:, None, None])


@pytest.mark.parametrize("name", RECIPES)
def test_a_prepared_network_computes_what_it_did_before(name):
    torch.manual_seed(0)
    network, *_ = tiny(name).networks().values()
    if isinstance(network, nn.ModuleDict):  # of two ways: there and back
        network, _ = network.values()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after a training
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    network.eval().requires_grad_(False)
    data = tiny(name).data
    if isinstance(network, Predictor):
        clips = torch.rand(4, network.given, data.channels, data.size, data.size) * 2 - 1
        inputs, function = (clips, torch.randn(4, network.predicted * network.latents)), "forward"
    elif hasattr(network, "latent") and not hasattr(network, "encode"):
        inputs = (torch.randn(4, network.latent),)
        function = "forward"
    elif isinstance(network, QuantisedAutoencoder):
        inputs, function = (torch.randn(4, 8, 4, 4),), "decode"
    elif hasattr(network, "encode"):
        inputs, function = (torch.randn(4, network.latent),), "decode"
        if isinstance(network, DrawVAE) and network.alignment:  # what it is told, as one word
            inputs += (torch.randn(4, network.alignment.of_words.in_features),)
    else:
        inputs = (torch.rand(4, data.channels, data.size, data.size) * 2 - 1,)
        if isinstance(network, RestoringNetwork):
            inputs += (constant_maps(torch.full((4, network.maps), 0.1), *inputs),)
        if isinstance(network, VelocityUNet):  # which is at rest before a training
            nn.init.normal_(network.tail[-1].weight, std=0.1)
            inputs += (torch.rand(4),)
        if isinstance(network, Stylist):  # what it looks at is left as it is
            inputs += (torch.tensor([1.0, 0.0])[:, None].expand(4, 2, network.features),)
        function = "forward"

    def computed(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        made = getattr(network, function)(*inputs)  # of a detector several maps
        return made if isinstance(made, torch.Tensor) else torch.cat(made, dim=1)

    expected = computed(network, *inputs)
    ready = prepared(copy.deepcopy(network), "float32")
    for part in ready.modules():  # normalisation right behind a convolution is part of it
        if isinstance(part, nn.Sequential):
            real = [layer for layer in part if not isinstance(layer, nn.Identity)]
            assert not any(
                isinstance(behind, nn.BatchNorm2d) and isinstance(layer, Packed | nn.Conv2d)
                for layer, behind in itertools.pairwise(real)
            )
    assert torch.allclose(computed(ready, *inputs), expected, atol=1e-4)
    # weights that are cast and packed once give what autocast gives, up to the order of sums
    folded = copy.deepcopy(network).to(memory_format=torch.channels_last)
    for part in folded.modules():
        if isinstance(part, nn.Sequential):
            fold_normalisation(part)
    lower = prepared(copy.deepcopy(folded), "bfloat16")
    both = [
        Inference({"network": each}, "bfloat16").run(partial(computed, each), *inputs)
        for each in (folded, lower)
    ]
    torch.testing.assert_close(*both, atol=2**-6, rtol=1e-5)  # a step, at 2 to 4
    # the growing network brings every pixel to one length behind each layer, and rounds it anew
    assert (both[0] == both[1]).float().mean() > (0.2 if name == "progan" else 0.9)
    assert both[0].dtype == torch.float32
    assert (both[0] - expected).abs().mean() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3, FEW_CHANNELS])
def test_a_doubling_to_few_channels_is_computed_by_its_phases(channels, bias):
    layer = nn.ConvTranspose2d(5, channels, 4, stride=2, padding=1, bias=bias)
    network = prepared(nn.Sequential(layer).eval().requires_grad_(False), "float32")
    assert isinstance(network[0], Phases) == (channels < FEW_CHANNELS and can_be_packed(layer))
    for height, width in ((1, 1), (3, 8), (7, 2)):
        images = torch.randn(3, 5, height, width)
        torch.testing.assert_close(network(images), layer(images))


def test_a_relu_is_part_of_the_convolution_before_it():
    layers = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Tanh()
    ).eval()
    images = torch.randn(2, 3, 9, 9)
    expected = layers(images)
    ready = prepared(copy.deepcopy(layers).requires_grad_(False), "float32")
    torch.testing.assert_close(ready(images), expected)
    if can_be_packed(layers[1]):
        assert [type(layer) for layer in ready[1:4]] == [Packed, nn.Identity, nn.Identity]
        assert isinstance(ready[0], nn.ReLU)


def test_normalisation_without_a_convolution_before_it_stays():
    layers = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval()
    fold_normalisation(layers)
    assert isinstance(layers[1], nn.BatchNorm2d)


def test_auto_is_bfloat16_only_where_the_hardware_multiplies_it():
    assert resolved("float32", CPU) == "float32"
    assert resolved("bfloat16", CPU) == "bfloat16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolved("auto", CPU) == ("bfloat16" if native else "float32")


def test_passes_of_large_images_have_few_rows():
    assert rows_at_once(32**2, CPU) == rows_at_once(64**2, CPU) == CHUNK
    assert rows_at_once(128**2, CPU) == 16
    assert rows_at_once(1024**2, CPU) == 1


@given(pixels=st.integers(1, 2**20), device=st.sampled_from([CPU, torch.device("cuda")]))
def test_a_full_pass_is_of_a_size_that_is_tried(pixels, device):
    assert rows_at_once(pixels, device) in PROBED
    rows = torch.randn(10, 3)
    seen: list[int] = []

    def look(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part * 2

    few = Inference({"any": nn.Linear(1, 1)}, most=4)
    torch.testing.assert_close(few.run(look, rows), rows * 2)
    assert seen == [4, 4, 2]
    seen.clear()
    established = few.establish((of(look), {"latent": rows[:4]}))
    assert seen == []
    torch.testing.assert_close(established.run(look, rows[:2]), rows[:2] * 2)
    assert seen == [4, 2, 2]  # what is right, the size that is wanted, and the pass itself
    seen.clear()
    established.run(look, rows[:2])
    assert seen == [2]
    assert established.sizes.all() == (1, 2, 3, 4)


def paced(pace: Pace, seconds: dict[int, float], rows: int) -> list[int]:
    """The sizes of passes in which so many rows are computed; seconds: of a row, by size."""
    sizes = []
    while rows:
        sizes.append(min(pace.size(rows), rows))
        pace.took(sizes[-1], sizes[-1] * seconds.get(sizes[-1], 9.0))
        rows -= sizes[-1]
    return sizes


@pytest.mark.parametrize(
    ("seconds", "best", "tried"),
    [
        ({64: 3.0, 32: 2.0, 16: 1.0, 192: 0.5}, 16, [64, 32, 16]),  # nor is a larger one tried
        ({64: 2.0, 32: 1.0, 16: 1.5, 192: 0.5}, 32, [64, 32, 16]),
        ({64: 1.0, 32: 1.1, 16: 1.2, 192: 1.1}, 64, [64, 32, 16, 192]),
        ({64: 1.0, 32: 1.1, 16: 1.2, 192: 0.9}, 192, [64, 32, 16, 192]),
        ({64: 1.0, 32: 0.99, 16: 0.97, 192: 0.98}, 64, [64, 32, 16, 192]),  # by chance, perhaps
    ],
)
def test_of_many_rows_the_fastest_size_of_passes_is_found(seconds, best, tried):
    pace = Pace(64, [16, 32, 192])
    *sizes, _ = paced(pace, seconds, 192 * 20)
    tries = [size for size in tried for _ in range(3)]
    assert sizes == tries + [best] * (len(sizes) - len(tries))
    assert paced(pace, seconds, 2 * best) == [best, best]


def test_the_fastest_of_a_few_passes_counts():
    pace = Pace(64, [16])
    for size, seconds in ((64, 9), (64, 1), (64, 2), (16, 9), (16, 9), (16, 0.5)):
        assert pace.size(1000) == size
        pace.took(size, seconds)
    assert pace.size(1000) == 64


def test_few_rows_are_computed_as_ever():
    pace = Pace(64, [16, 32, 192])
    assert paced(pace, {64: 1.0, 7: 1.0}, 71) == [64, 7]
    assert paced(Pace(8), {8: 1.0, 1: 1.0}, 17) == [8, 8, 1]


def test_larger_passes_than_usual_are_relied_on_only_where_they_agree():
    rows = torch.randn(3 * CHUNK, 3)
    for odd_ones, size in ((set(), 3 * CHUNK), ({3 * CHUNK}, CHUNK)):
        network = Fickle(odd_ones)
        passes = []

        def counted(some, network=network, passes=passes):
            passes.append(len(some))
            return network(some)

        example = of(counted), {"latent": rows[:CHUNK]}
        inference = Inference({"fickle": network}).establish(example)
        made = inference.rows(of(counted), {"latent": rows}, 3 * CHUNK)["latent"]
        assert torch.equal(made, rows)
        assert passes[-1] == size


def test_where_few_are_left_the_fastest_size_so_far_is_taken():
    pace = Pace(64, [16, 32, 192])
    paced(pace, {64: 1.0, 32: 0.5, 16: 0.6, 192: 1.0}, 64 * 6 + 32 * 6 + 16 * 3)
    assert pace.size(40) == 32


def test_a_size_that_fails_is_not_asked_for_again_nor_a_larger_one():
    pace = Pace(64, [192, 1024])
    for _ in range(3):
        pace.took(64, 64.0)
    assert pace.size(5000) == 192
    with pytest.raises(MemoryError), pace.timed(192):
        raise MemoryError
    assert pace.size(5000) == 64
