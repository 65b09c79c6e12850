"""Procedural scenes: keyed and batch-independent, with annotations that agree with the pixels."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from genimg import rng
from genimg.data.layout import BACKDROPS, COLOURS, SLOTS, compose
from genimg.data.painting import coverage, paint
from genimg.data.scenes import annotate, render
from genimg.data.shapes import SHAPES
from genimg.data.textures import TEXTURES

OBJECT = rf"a ({'|'.join(TEXTURES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
CAPTION = re.compile(
    rf"{OBJECT}(, {OBJECT})?( and {OBJECT})? on a ({'|'.join(BACKDROPS)}) background"
)


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return rng.fold(seed, torch.arange(count))


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=9),
    cut=st.integers(1, 8),
    size=st.sampled_from([8, 17, 32]),
    channels=st.sampled_from([1, 3]),
    simple=st.booleans(),
)
def test_a_scene_depends_on_its_key_alone(seeds, cut, size, channels, simple):
    batch = torch.tensor(seeds)
    together = render(batch, size, channels, simple)
    apart = torch.cat([render(part, size, channels, simple) for part in (batch[:cut], batch[cut:])])
    assert torch.equal(together, apart)
    assert torch.equal(together.flip(0), render(batch.flip(0), size, channels, simple))


def test_a_scene_does_not_change_where_a_batch_is_drawn_in_chunks():
    batch = keys(40)  # at 128 pixels only a few fit into a chunk
    assert torch.equal(render(batch, 128, 3)[33], render(batch[33:34], 128, 3)[0])


def test_a_key_looks_the_same_for_ever():
    """Known pixels of one scene. Whoever changes them raises scenes.VERSION."""
    image = render(keys(1), 16, 3)[0]
    assert annotate(keys(1), 16).captions == [
        "a plain cyan ring and a marbled pink cross on a plain background"
    ]
    assert image[:, 1, 1].tolist() == [253, 232, 228]
    assert image.sum().item() == 169_144


def test_a_simple_key_looks_the_same_for_ever():
    """Known pixels of the same key's simple scene, likewise."""
    image = render(keys(1), 16, 3, simple=True)[0]
    assert annotate(keys(1), 16, simple=True).captions == [
        "a plain cyan ring on a plain background"
    ]
    assert image[:, 1, 1].tolist() == [250, 244, 228]
    assert image.sum().item() == 163_350


def test_a_simple_scene_is_one_large_plain_object_near_the_middle():
    batch = keys(2000)
    truth = annotate(batch, 64, simple=True)
    said = rf"a plain ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) on a plain background"
    assert all(re.fullmatch(said, caption) for caption in truth.captions)
    assert truth.masks.amax() == 1
    x0, y0, x1, y1 = truth.boxes[:, 0].unbind(1)
    middle = torch.stack([x0 + x1, y0 + y1]) / 2 - 32
    assert middle.abs().max() < 10
    assert torch.maximum(x1 - x0, y1 - y0).min() >= 0.5 * 64


def test_the_full_scenes_hold_every_simple_one():
    """Its object is of a size that lone objects have, and the same key's in shape and colour."""
    full, simple = compose(keys(5000)), compose(keys(5000), simple=True)
    assert torch.equal(full.shapes[:, 0], simple.shapes[:, 0])
    assert torch.equal(full.colours[:, 0], simple.colours[:, 0])
    backdrops = [set(map(tuple, one.first[:, -1].tolist())) for one in (full, simple)]
    assert backdrops[1] < backdrops[0]
    assert min(map(min, backdrops[1])) > 200  # pale
    lone = full.radii[:, 0][(full.shapes >= 0).sum(1) == 1]
    assert lone.min() < simple.radii[:, 0].min()
    assert simple.radii[:, 0].max() <= lone.max() + 0.01  # the largest of these is 0.759


@pytest.mark.parametrize("simple", [False, True], ids=["full", "simple"])
def test_scenes_differ(simple):
    images = render(keys(500), 16, 1, simple).flatten(1)
    assert len(images.unique(dim=0)) == 500


@pytest.mark.parametrize("size", [8, 33, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_size_and_channels_asked_for(size, channels):
    images = render(keys(3), size, channels)
    assert (images.shape, images.dtype) == ((3, channels, size, size), torch.uint8)
    assert images.flatten(1).float().std(1).min() > 1  # something is drawn on each


def test_gray_is_the_luma_of_colour():
    colour, gray = render(keys(50), 32, 3), render(keys(50), 32, 1)
    for rgb, one in zip(colour, gray, strict=True):
        luma = np.asarray(Image.fromarray(rgb.permute(1, 2, 0).numpy()).convert("L"), np.int16)
        assert np.abs(luma - one[0].numpy()).max() <= 1


@pytest.mark.parametrize("simple", [False, True], ids=["full", "simple"])
def test_pixels_outside_all_masks_are_background(simple):
    layout = compose(keys(60), simple)
    bare = replace(layout, shapes=torch.full_like(layout.shapes, -1))
    changed = (paint(layout, 64, 3) != paint(bare, 64, 3)).any(1).numpy()
    masks = annotate(keys(60), 64, simple).masks.numpy() > 0
    for image, mask in zip(changed, masks, strict=True):
        assert not (image & ~binary_dilation(mask, np.ones((3, 3)), 2)).any()
        assert image[binary_erosion(mask)].all()


def test_a_mask_is_where_its_object_is_seen():
    """Recolour one object: exactly the pixels of its mask change, but for soft edges."""
    layout, masks = compose(keys(60)), annotate(keys(60), 64).masks.numpy()
    before = paint(layout, 64, 3).int()
    for slot in range(SLOTS):
        first, second = layout.first.clone(), layout.second.clone()
        first[:, slot], second[:, slot] = 255 - first[:, slot], 255 - second[:, slot]
        after = paint(replace(layout, first=first, second=second), 64, 3).int()
        changed = ((after - before).abs().amax(1) > 0).numpy()
        for image, mask in zip(changed, masks == slot + 1, strict=True):
            assert not (image & ~binary_dilation(mask, np.ones((3, 3)), 2)).any()
            assert image[binary_erosion(mask)].all()


@pytest.mark.parametrize("simple", [False, True], ids=["full", "simple"])
def test_slots_class_masks_and_labels_tell_the_same_story(simple):
    truth = annotate(keys(200), 48, simple)
    assert torch.equal(truth.labels, truth.object_classes[:, 0])
    classes = truth.class_masks()
    for slot in range(SLOTS):
        expected = (truth.object_classes[:, slot] + 1)[:, None, None].expand_as(classes)
        mine = truth.masks == slot + 1
        assert torch.equal(classes[mine], expected[mine])
        present = truth.object_classes[:, slot] >= 0
        assert torch.equal(present, mine.flatten(1).any(1))
    assert not classes[truth.masks == 0].any()


def test_the_main_object_is_whole_and_largest_and_three_quarters_of_the_others_are_seen():
    batch = keys(4000, seed=3)  # has some where there is no room for a third object
    alone = (coverage(compose(batch), 32) >= 0.5).sum((-2, -1))
    masks = annotate(batch, 32).masks
    seen = torch.stack([(masks == slot + 1).sum((-2, -1)) for slot in range(SLOTS)], 1)
    assert torch.equal(seen[:, 0], alone[:, 0])
    assert (seen[:, :1] > seen[:, 1:]).all()
    assert (seen[alone > 0] / alone[alone > 0]).min() > 0.75


def test_boxes_are_tight_around_masks():
    truth = annotate(keys(200), 32)
    for masks, boxes in zip(truth.masks, truth.boxes, strict=True):
        for slot, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
            y, x = (masks == slot + 1).nonzero(as_tuple=True)
            if len(x) == 0:
                assert (x0, y0, x1, y1) == (0, 0, 0, 0)
            else:
                assert (x0, y0, x1, y1) == (x.min(), y.min(), x.max() + 1, y.max() + 1)


def test_captions_name_the_colours_that_are_seen():
    """The median colour of each plain object, off its edges, is nearest to the palette's."""
    names, palette = list(COLOURS), torch.tensor(list(COLOURS.values()))
    truth, images = annotate(keys(120), 64), render(keys(120), 64, 3)
    checked = 0
    for caption, image, masks in zip(truth.captions, images, truth.masks, strict=True):
        slots = masks.unique().tolist()[1:]
        said = re.findall(OBJECT, caption)
        assert len(said) == len(slots)
        for slot, (texture, colour, _) in zip(slots, said, strict=True):
            inside = torch.from_numpy(binary_erosion(masks.numpy() == slot))
            if texture == "plain":
                median = image[:, inside].median(1).values
                nearest = (palette - median).square().sum(1).argmin()
                assert names[nearest] == colour
                checked += 1
    assert checked > 40


def test_captions_name_the_shapes_of_the_slots():
    truth, shapes = annotate(keys(120), 16), list(SHAPES)
    for caption, classes in zip(truth.captions, truth.object_classes.tolist(), strict=True):
        assert CAPTION.fullmatch(caption)
        said = [shape for _, _, shape in re.findall(OBJECT, caption)]
        assert said == [shapes[kind] for kind in classes if kind >= 0]


def test_outlines_have_the_areas_of_their_shapes():
    """Known areas in units of the radius squared, by counting pixels of one upright shape."""
    line = (torch.arange(600) + 0.5) / 250 - 1.2
    v, u = torch.meshgrid(line, line, indexing="ij")
    expected = {
        "disc": np.pi * 0.9**2,
        "square": 1.6**2,
        "triangle": 3 * np.sqrt(3) * 0.55**2,
        "star": 10 * 0.5 * 1.08 * 0.53 * np.sin(np.pi / 5),
        "ring": np.pi * (0.93**2 - 0.43**2),
        "cross": 2 * 1.88 * 0.68 - 0.68**2,
        "hexagon": 2 * np.sqrt(3) * 0.84**2,
        "heart": 2 * 0.74**2 + np.pi * 0.74**2 / 2,
    }
    for name, shape in SHAPES.items():
        area = (shape(u[None], v[None]) < 0).sum().item() / 250**2
        assert area == pytest.approx(expected[name], rel=0.01), name


def test_distances_have_slope_one_across_every_outline():
    """Else soft edges would be blurred or ragged: a pixel's coverage is read off the distance."""
    line = (torch.arange(600) + 0.5) / 250 - 1.2
    v, u = torch.meshgrid(line, line, indexing="ij")
    for name, shape in SHAPES.items():
        distance = shape(u[None], v[None])[0]
        down, right = torch.gradient(distance, spacing=1 / 250)
        slope = (down * down + right * right).sqrt()[distance.abs() < 0.02]
        assert slope.median().item() == pytest.approx(1, abs=0.01), name
        assert slope.max() < 1.05, name


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_blend_within_0_and_1_and_keep_the_first_colour_dominant(name):
    line = torch.arange(400) / 50 - 4
    w, z = torch.meshgrid(line, line, indexing="ij")
    if name == "shaded":
        w = w / 8
    blended = TEXTURES[name](w[None].clone(), z[None].clone(), torch.full((1, 1, 1), 50.0))
    assert 0 <= blended.min() <= blended.max() <= 1
    assert blended.mean() < 0.51
    assert (name == "plain") == bool(blended.std() == 0)


def test_shapes_and_numbers_of_objects_are_balanced():
    truth = annotate(keys(4000), 8)
    share = truth.labels.bincount(minlength=len(SHAPES)) / 4000
    assert (share - 1 / len(SHAPES)).abs().max() < 0.02
    objects = (truth.object_classes >= 0).sum(1).bincount(minlength=4) / 4000
    assert objects[0] == 0
    assert (objects[1:] - 1 / 3).abs().max() < 0.05


def test_a_scene_has_the_same_layout_at_32_and_64_pixels():
    assert annotate(keys(200), 32).captions == annotate(keys(200), 64).captions
    layout = compose(keys(200))
    small = coverage(layout, 32) >= 0.5
    large = torch.nn.functional.avg_pool2d(coverage(layout, 64), 2) >= 0.5
    there = layout.shapes >= 0
    overlap = (small & large).sum((-2, -1))[there] / (small | large).sum((-2, -1))[there]
    assert overlap.min() > 0.8
    assert overlap.mean() > 0.97


def test_a_scene_at_64_pixels_averages_to_the_one_at_32():
    large = torch.nn.functional.avg_pool2d(render(keys(100), 64, 3).float(), 2)
    assert (large - render(keys(100), 32, 3)).abs().mean() < 2
