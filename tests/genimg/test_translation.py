"""Translation: what is learnt, and a step of it against the papers' equations."""

import copy
from contextlib import closing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, loader_of, started, trained

from genimg import recipes, rng
from genimg.contracts import UNKNOWN
from genimg.data.layout import compose, retextured
from genimg.data.opening import open_dataset
from genimg.data.painting import blend, paint
from genimg.data.scenes import Scenes, slot_masks
from genimg.data.textures import TEXTURES
from genimg.inference import Inference
from genimg.masks import encode, palette
from genimg.pixels import to_bytes_range, to_tensor
from genimg.recipes.tasks import TASKS
from genimg.training.sync import Alone
from genimg.training.translation import both


def pictures(channels: int = 3, count: int = 4, size: int = 12) -> torch.Tensor:
    random = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)
    return to_tensor(random)


# tasks


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_learnt_by_closed_forms(channels):
    images = pictures(channels)
    made = {name: task.second({"image": images}) for name, task in TASKS.items()
            if task.wants == ("image",)}  # fmt: skip
    assert torch.equal(made["mirrored"], images[..., range(11, -1, -1)])
    thick = ndimage.maximum_filter(images.numpy(), (1, 1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(made["thickened"].numpy(), thick)
    gray = TASKS["gray"].first({"image": images})
    assert (gray == gray[:, :1]).all()
    if channels == 3:
        weights = torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(gray[:, 0], torch.einsum("nchw,c->nhw", images, weights))
    value = (made["night"] + 1) / 2
    assert (value <= (images + 1) / 2 + 1e-6).all()
    left = torch.tensor([0.2, 0.3, 0.55] if channels == 3 else [0.3])
    torch.testing.assert_close(value, left[:, None, None] * ((images + 1) / 2) ** 1.5)
    assert torch.equal(images, pictures(channels))  # nothing was changed in place


def test_masks_are_seen_in_the_colours_of_their_files(tmp_path):
    from genimg import images

    mask = torch.tensor([[[0, 1, 2], [7, 8, UNKNOWN]]])
    coloured = TASKS["masks"].first({"mask": mask})
    assert torch.equal(to_bytes_range(coloured), torch.from_numpy(palette())[mask].movedim(3, 1))
    decoded = images.decode(encode(mask[0, ..., None].to(torch.uint8).numpy()), 3)
    assert torch.equal(to_tensor(decoded), coloured[0])


@given(st.integers(0, 2**40))
def test_scenes_in_other_textures_differ_in_nothing_else(seed):
    layout = compose(rng.fold(seed, torch.arange(3)))
    other = retextured(layout)
    again = retextured(other)
    assert torch.equal(again.textures, layout.textures)
    assert torch.equal(slot_masks(other, 24), slot_masks(layout, 24))
    names = list(TEXTURES)
    pairs = {
        (names[one], names[two])
        for one, two in zip(layout.textures.flatten(), other.textures.flatten(), strict=True)
        if one != two
    }
    swapped = {("striped", "wavy"), ("checkered", "dotted")}
    assert pairs <= swapped | {pair[::-1] for pair in swapped}
    stays = (layout.textures == other.textures)[..., None, None]
    assert torch.equal(blend(other, 24) * stays, blend(layout, 24) * stays)


def test_of_scenes_the_target_is_that():
    data = Scenes(16, 3, ("image", "target"))
    stored = data.fetch(np.arange(40), torch.arange(40))
    layout = compose(data.scene_keys(np.arange(40)))
    assert torch.equal(stored["target"], paint(retextured(layout), 16, 3))
    differ = (layout.textures != retextured(layout).textures).any(dim=1)
    assert differ.any()
    assert not differ.all()
    alike = (stored["image"] == stored["target"]).flatten(1).all(dim=1)
    assert (alike[~differ]).all()


def test_no_batch_has_both_of_a_pair_where_none_are_learnt_from():
    recipe = tiny("cyclegan", "task=mirrored")
    images = pictures(count=6)
    first, second = recipe.apart({"image": images})
    assert torch.equal(first, images[[0, 2, 4]])
    assert torch.equal(second, images[[1, 3, 5]].flip(-1))
    assert recipe.together == 2
    folders = recipes.named("cyclegan").override(["task=folders"])
    assert folders.together == 1
    assert folders.apart({"image": images, "other": -images})[1].equal(-images)
    assert [len(side) for side in recipe.sides({"image": images})] == [6, 6]


# learning

LOSSES = {
    "logistic": (lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(),
                 lambda f: F.softplus(-f).mean()),
    "least-squares": (lambda r, f: ((r - 1).square().mean() + f.square().mean()) / 2,
                      lambda f: (f - 1).square().mean() / 2),
    "hinge": (lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), lambda f: -f.mean()),
}  # fmt: skip
EXACT = ("train.precision=float32", "train.warmup=0", "train.ema_half_life=0")


def gradients(loss: torch.Tensor, network: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))


def same_gradients(network: nn.Module, expected: list[torch.Tensor]) -> None:
    for (name, parameter), each in zip(network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, each, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_of_pix2pix_is_that_of_its_equations(kind):
    recipe = tiny("pix2pix", f"loss.kind={kind}", "loss.absolute=3", *EXACT)
    method = started(recipe)
    trained(recipe, method, 1)
    batch = batch_at(recipe, method.seen)
    first, second = recipe.sides(batch.rows)
    before = copy.deepcopy(method.networks)
    of_discriminator, of_generator = LOSSES[kind]
    told = method.update(batch, Alone())

    made = before["translator"](first)
    pairs = [torch.cat([first, each], dim=1) for each in (second, made)]
    logits = before["discriminator"](torch.cat([pairs[0], pairs[1].detach()])).chunk(2)
    loss_d = of_discriminator(*logits)
    torch.testing.assert_close(told["loss_d"], loss_d.detach())
    same_gradients(method.networks["discriminator"], gradients(loss_d, before["discriminator"]))
    after = copy.deepcopy(method.networks["discriminator"])
    with torch.no_grad():  # its power iteration went on by the step of the translator
        for name, buffer in before["discriminator"].named_buffers():
            after.get_buffer(name).copy_(buffer)
    deceived = of_generator(after(pairs[1]))
    loss = deceived + 3 * (made - second).abs().mean()
    torch.testing.assert_close(told["loss"], loss.detach())
    torch.testing.assert_close(told["loss_adversarial"], deceived.detach())
    same_gradients(method.networks["translator"], gradients(loss, before["translator"]))


def test_a_step_of_cyclegan_is_that_of_its_equations():
    recipe = tiny("cyclegan", "loss.kind=least-squares", "loss.cycle=7", "loss.identity=2", *EXACT)
    method = started(recipe)
    trained(recipe, method, 2)  # so that neither way is the identity
    batch = batch_at(recipe, method.seen)
    first, second = recipe.apart(batch.rows)
    before = copy.deepcopy(method.networks)
    told = method.update(batch, Alone())
    forth, back = both(before["translator"])
    of_discriminator, of_generator = LOSSES["least-squares"]

    there, here = forth(first), back(second)
    contests = [(second, there), (first, here)]
    loss_d = sum(
        of_discriminator(*network(torch.cat([real, fake.detach()])).chunk(2))
        for network, (real, fake) in zip(both(before["discriminator"]), contests, strict=True)
    )
    torch.testing.assert_close(told["loss_d"], loss_d.detach())
    after = copy.deepcopy(method.networks["discriminator"])
    with torch.no_grad():
        for name, buffer in before["discriminator"].named_buffers():
            after.get_buffer(name).copy_(buffer)
    cycle = (back(there) - first).abs().mean() + (forth(here) - second).abs().mean()
    same = (back(first) - first).abs().mean() + (forth(second) - second).abs().mean()
    deceived = sum(
        of_generator(network(fake))
        for network, (_, fake) in zip(both(after), contests, strict=True)
    )
    loss = 7 * cycle + 2 * same + deceived
    for name, value in (("loss", loss), ("loss_cycle", 7 * cycle), ("loss_identity", 2 * same)):
        torch.testing.assert_close(told[name], value.detach())
    same_gradients(method.networks["translator"], gradients(loss, before["translator"]))


def test_without_pairs_it_learns_what_it_is_judged_by():
    """Night of day: at first it gives the day back."""
    longer = ("train.images=40000", "train.lr=2e-3", *EXACT[:2], "train.ema_half_life=100")
    recipe = tiny("cyclegan", "task=night", "data.scenes=simple", *longer)
    held_out = open_dataset(recipe.data, recipe.wants, "test")
    method = started(recipe)
    before = recipe.evaluate(Inference(method.averages), held_out)
    with closing(iter(loader_of(recipe))) as batches:
        for _ in range(60):
            method.update(next(batches), Alone())
    after = recipe.evaluate(Inference(method.averages), held_out)
    assert after["psnr"] > before["psnr"] + 5
    assert after["ssim"] > before["ssim"]
