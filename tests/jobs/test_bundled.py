"""The models that come with genimg: whole, small, described, and of use."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cluster.fallback import over
from cluster.registry import Registry
from cluster.versions import Unknown
from genimg import bundled, checkpoint, images
from genimg.compact import CARD, GIST, compact, gist
from genimg.data.grids import FRAMES
from genimg.data.scenes import Scenes
from genimg.degradations.holes import Holes
from genimg.degradations.jpeg import real
from genimg.degradations.noise import Noise
from genimg.degradations.resampling import bicubic
from genimg.engine import Engine, trained
from genimg.errors import InputError
from genimg.masks import palette
from genimg.metrics.fidelity import psnr
from genimg.models.upscaling import fold
from genimg.moving import decode, encode
from genimg.pixels import to_bytes_range
from jobs.cli import app
from jobs.model import address_of, folder_of
from jobs.runs.addressed import folder_at
from serving.watcher import Target, target_of

data = pytest.importorskip("skimage.data", reason="its photographs are looked at")
KEYS = torch.tensor([7])
BY_CLASS = {"digits", "shapes"}
OTHERS = {"painter", "mover", "masks-to-scenes", "stylise"}
RESTORERS = [name for name in bundled.names() if name not in BY_CLASS | OTHERS]


def photograph() -> torch.Tensor:
    """float32 [1, 3, 128, 128] in [-1, 1]."""
    crop = data.astronaut()[60:188, 160:288]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def damaged(name: str, clean: torch.Tensor) -> torch.Tensor:
    match name:
        case "denoise" | "denoise-gray":
            return Noise(low=25, high=25, quantise=True).damage(clean, KEYS).images
        case "deblock":
            return real(clean, torch.tensor([15]))
        case "restore":
            noisy = Noise(low=10, high=10, quantise=True).damage(clean, KEYS).images
            return real(noisy, torch.tensor([40]))
        case "inpaint":
            return Holes(of=("pixels",), low=0.5, high=0.5).damage(clean, KEYS).images
        case _:
            scale = int(name[-1])
            return bicubic(clean, (clean.shape[2] // scale, clean.shape[3] // scale)).clamp(-1, 1)


def written(images: torch.Tensor, path: Path) -> Path:
    pixels = to_bytes_range(images)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


def read(path: Path, channels: int) -> torch.Tensor:
    image = np.array(Image.open(path).convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(image.reshape(*image.shape[:2], channels)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", RESTORERS)
def test_one_command_makes_a_photograph_better(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no registry is there
    clean = photograph()
    clean = clean.mean(dim=1, keepdim=True) if name == "denoise-gray" else clean
    damage = damaged(name, clean)
    given = written(damage, tmp_path / "given.png")
    operation, _, which = name.partition("-")
    command = [operation, str(given), "-o", "made.png"]
    if which == "gray":
        command += ["-m", name]
    if operation == "upscale":
        command += ["--scale", which[1]]
    if name == "inpaint":
        holes = Holes(of=("pixels",), low=0.5, high=0.5).damage(clean, KEYS).tells["mask"]
        command += ["--mask", str(written(2 * holes - 1, tmp_path / "mask.png"))]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    truth = to_bytes_range(clean)
    made = psnr(read(tmp_path / "made.png", clean.shape[1]), truth).item()
    plain = bicubic(damage, truth.shape[-2:]) if damage.shape != clean.shape else damage
    before = psnr(to_bytes_range(plain), truth).item()
    least = {"denoise": 6, "denoise-gray": 6, "inpaint": 12, "upscale-x2": 1.5}.get(name, 0.8)
    assert made > before + least


def test_one_command_draws_the_digit_that_is_asked_for(tmp_path, monkeypatch):
    """Eights have more ink than sevens, and these than ones; a one's lies in fewer columns."""
    monkeypatch.chdir(tmp_path)
    ink, wide = {}, {}
    for label in "178":
        line = ["sample", "digits", "--label", label, "-n", "16", "--seed", "0", "-o", label]
        assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
        drawn = np.stack([np.array(Image.open(each)) for each in sorted(Path(label).glob("*.png"))])
        assert drawn.shape == (16, 32, 32)
        ink[label] = (drawn > 127).mean()
        wide[label] = (drawn > 127).any(axis=1).mean()
    assert ink["1"] < ink["7"] < ink["8"]
    assert wide["1"] < 0.8 * min(wide["7"], wide["8"])
    done = CliRunner().invoke(app, ["sample", "digits", "--label", "seven", "-o", "x.png"])
    assert isinstance(done.exception, InputError)


def test_one_command_draws_the_shape_that_is_asked_for(tmp_path, monkeypatch):
    """As a classifier reads them that has seen real scenes alone, and each of them."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        return CliRunner().invoke(app, line.split(), catch_exceptions=False).output

    few = "train.images=30000 train.checkpoint_every=30000 evaluation.images=500"
    run(f"train classifier {few} --data scenes --run judge --workers 0 --register judge")
    right = json.loads(run("evaluate judge evaluation.images=500 --data scenes --json"))["accuracy"]
    assert right > 0.9
    for label in "disc", "star", "heart":
        run(f"sample shapes --label {label} -n 32 --seed 0 -o {label}")
        run(f"classify {label} -o {label}.jsonl -m judge")
        told = [json.loads(line) for line in Path(f"{label}.jsonl").read_text().splitlines()]
        assert sum(each["classify"][0]["label"] == label for each in told) / 32 > right - 0.15


def test_how_near_latents_come_is_told_and_what_the_model_draws_nothing_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(photograph(), tmp_path / "photo.png")
    line = ["sample", "digits", "--label", "3", "--seed", "0", "-o", "three.png"]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    for name, unlike in (("photo", True), ("three", False)):
        line = ["invert", f"{name}.png", "-m", "digits", "--label", "3", "-o", f"{name}.jsonl"]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert ("unlike what this model draws" in done.output) == unlike, done.output
        told = json.loads(Path(f"{name}.jsonl").read_text())
        pixels = np.array(Image.open(f"{name}.png").convert("L").resize((32, 32), 1), float)
        plain = 10 * np.log10(255**2 / pixels.var())
        assert told["plain_psnr"] == pytest.approx(plain, abs=0.1)
        assert f"{told['psnr']:.2f} dB; of its mean colour all over: {told['plain_psnr']:.2f}" in (
            done.output
        )


def test_one_command_draws_what_a_text_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for channel, colour in enumerate(("red", "green", "blue")):
        line = ["sample", "painter", "--text", f"a {colour} star", "-n", "8", "--seed", "0"]
        done = CliRunner().invoke(app, [*line, "-o", colour], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        for each in Path(colour).glob("*.png"):
            pixels = np.array(Image.open(each)).astype(int).reshape(-1, 3)
            strong = pixels[np.ptp(pixels, axis=1) > 100]
            assert len(strong) > 20
            assert strong.mean(axis=0).argmax() == channel, each
    assert "no such texts" not in done.output
    line = ["sample", "painter", "--text", "red left two", "--seed", "0", "-o", "x.png"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "text='red left two': all its words are known, but no such texts" in done.output


def test_one_command_goes_on_with_a_clip(tmp_path, monkeypatch):
    """Nearer to what follows than the last frame that it has been given is."""
    monkeypatch.chdir(tmp_path)
    planes = Scenes(32, 3, ("frames",), seed=5).fetch(np.arange(8), torch.arange(8))["frames"]
    clips = planes.view(8, FRAMES, 3, 32, 32).permute(0, 1, 3, 4, 2).contiguous().numpy()
    errors = []
    for frames in clips:
        Path("clip.webp").write_bytes(encode(frames[:10]))
        line = ["animate", "clip.webp", "--frames", "10", "-o", "longer.webp"]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        made = np.stack(decode(Path("longer.webp").read_bytes(), 3))
        assert len(made) == 20
        assert (made[:10] == frames[:10]).all()
        true = frames[10:].astype(float)
        errors.append([np.square(other - true).mean() for other in (made[10:], frames[9])])
    made, last = np.mean(errors, axis=0)
    assert made < 0.5 * last


def test_what_is_gray_is_denoised_by_the_model_for_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gray = photograph().mean(dim=1, keepdim=True)
    written(Noise(low=25, high=25, quantise=True).damage(gray, KEYS).images, Path("noisy.png"))
    line = ["denoise", "noisy.png", "--sigma", "25", "-o", "made.png"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "denoise-gray" in done.output
    assert psnr(read(Path("made.png"), 1), to_bytes_range(gray)).item() > 27


@pytest.mark.parametrize("name", bundled.names())
def test_each_is_whole_and_has_a_card(name):
    models = Registry(over("unused", bundled.FOLDER).beneath.storage)
    assert models.verify(name) == []
    folder = models.fetch(models.resolve(name))
    card = (folder / CARD).read_text()
    for heading in ("Data", "Training", "Figures", "What it is not good at"):
        assert f"\n## {heading}\n" in card
    assert "licen" in card or "may be used" in card
    assert not (folder / checkpoint.TRAINING).exists()


def test_a_mask_is_painted_where_it_says(tmp_path, monkeypatch):
    """Of either kind of file, and alike; what is no mask is refused."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((64, 80), np.uint8)
    mask[10:34, 8:32], mask[30:58, 44:72] = 2, 2
    gray, indexed = Image.fromarray(mask), Image.fromarray(mask)
    indexed.putpalette(palette().flatten().tolist())
    for name, image in (("gray", gray), ("indexed", indexed)):
        image.save(f"{name}.png")
        done = CliRunner().invoke(app, ["translate", f"{name}.png", "-o", f"{name}-scene.png"])
        assert done.exit_code == 0, done.output
    scene = np.asarray(Image.open("gray-scene.png").convert("RGB")).astype(float)
    assert scene.shape == (64, 80, 3)
    assert np.array_equal(scene, np.asarray(Image.open("indexed-scene.png").convert("RGB")))
    inside, outside = scene[mask > 0].mean(axis=0), scene[mask == 0].mean(axis=0)
    assert np.abs(inside - outside).max() > 40
    wrong = CliRunner().invoke(app, ["translate", "gray-scene.png", "-o", "x.png"])
    assert wrong.exit_code != 0
    assert "classes that were learnt" in str(wrong.exception)


def test_a_photograph_takes_on_a_style_by_one_command(tmp_path, monkeypatch):
    """It becomes bluer beside a blue cloth, and still shows what it showed."""
    monkeypatch.chdir(tmp_path)
    photo = data.astronaut()[:192, 100:300]
    cloth = np.full((96, 128, 3), (30, 60, 200), np.uint8)
    cloth[::6] = cloth[1::6] = (220, 220, 240)
    Image.fromarray(photo).save("photo.png")
    Image.fromarray(cloth).save("cloth.png")
    line = ["stylise", "photo.png", "--style", "cloth.png", "-o", "new.png"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made = np.asarray(Image.open("new.png").convert("RGB")).astype(float)
    assert made.shape == photo.shape
    blueness = [image[..., 2].mean() - image[..., 0].mean() for image in (photo, made)]
    assert blueness[1] > blueness[0] + 20
    gray = [image.mean(axis=2).ravel() for image in (photo, made)]
    assert np.corrcoef(gray)[0, 1] > 0.8


def test_what_is_gray_and_of_sixteen_bits_takes_on_a_style_in_colour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50
    Image.fromarray(deep).save("deep.png")
    images.save(data.astronaut()[:40, :40], Path("style.png"))
    for name in ("made.png", "made.jpg"):
        line = ["stylise", "deep.png", "--style", "style.png", "-o", name]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert images.load(name).shape == (30, 40, 3)


def test_all_together_are_small():
    size = {
        name: sum(path.stat().st_size for path in (bundled.FOLDER / "models" / name).rglob("*.*"))
        for name in bundled.names()
    }
    for names, most in ((RESTORERS, 16e6), (BY_CLASS, 12e6), (OTHERS, 8e6)):
        assert sum(size.get(name, 0) for name in names) < most


def test_a_registry_s_own_name_comes_first(tmp_path):
    models = over(str(tmp_path), bundled.FOLDER)
    version = models.resolve("denoise")
    assert models.fetch(version) == Path(models.address(version))
    assert bundled.FOLDER in models.fetch(version).parents
    source = Path(models.fetch(models.resolve("deblock")))
    own = tmp_path / "own"
    shutil.copytree(source, own, ignore=shutil.ignore_patterns("version.json"))
    registered = Registry(models.storage).register("denoise", own, {"psnr": 1.0}, {})
    assert models.resolve("denoise") == models.resolve("denoise@1") == registered
    assert models.fetch(registered).is_relative_to(tmp_path)
    assert models.resolve("deblock").number == 1
    Registry(models.storage).register("denoise", own, {"psnr": 2.0}, {})
    Registry(models.storage).remove("denoise@1")
    with pytest.raises(Unknown, match="denoise has no version 1"):
        models.resolve("denoise@1")  # nor that one in its place


def test_what_comes_with_genimg_keeps_its_number(tmp_path, monkeypatch):
    """Directions of a bundled model are registered as the next version, by that name too."""
    monkeypatch.chdir(tmp_path)
    models = over("registry", bundled.FOLDER)
    before = models.resolve("digits@1")
    line = ["directions", "digits", "--samples", "512"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "registered digits@2" in done.output
    assert "digits@1 comes with genimg as before" in done.output
    own, still = models.resolve("digits"), models.resolve("digits@1")
    assert (own.number, own.place) == (2, str(models.storage))
    assert (still, still.place) == (before, str(models.beneath.storage))
    assert address_of("digits@1", "registry") == "bundled:digits@1"
    assert target_of(models, "digits@1") == Target(1, place=still.place)
    assert target_of(models, "digits") == Target(2, place=own.place)
    asked = ["--label", "1", "-n", "8", "--direction", "slant=2", "-o"]
    with pytest.raises(InputError, match="direction"):
        CliRunner().invoke(app, ["sample", "digits@1", *asked, "x.png"], catch_exceptions=False)
    drawn = ["sample", "digits", *asked, "leaning.png"]
    assert CliRunner().invoke(app, drawn, catch_exceptions=False).exit_code == 0
    again = CliRunner().invoke(app, line, catch_exceptions=False)
    assert "registered digits@3" in again.output
    assert "as before" not in again.output


def test_one_that_is_nowhere_is_told_with_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(photograph(), tmp_path / "photo.png")
    done = CliRunner().invoke(app, ["denoise", "photo.png", "-o", "x.png", "-m", "denoiz"])
    assert isinstance(done.exception, Unknown)
    assert {"denoise", "deblock"} <= set(done.exception.known)


def test_half_precision_is_nearly_the_same_and_can_be_gone_on_from(tmp_path):
    """Weights that are folded are those of the 3x3 of a re-parameterised convolution."""
    source = bundled.FOLDER / "models" / "upscale-x2" / "versions" / "00001"
    recipe, networks = trained(source, "cpu")
    network = networks["restorer"]
    with torch.no_grad():  # as if it were trained on: all branches count
        for each in network.parameters():
            each.add_(torch.randn_like(each), alpha=0.002)
    folder = tmp_path / "whole"
    folder.mkdir()
    weights = {f"restorer.{name}": each.contiguous() for name, each in network.state_dict().items()}
    checkpoint.fill(
        folder, recipe=recipe.model_dump_json(), weights=weights, training={}, progress={},
        metrics={}, samples=b"", lineage={},
    )  # fmt: skip
    small = compact(folder, tmp_path / "small", half=True, card="# it\n")
    checkpoint.verify(small)
    sizes = [(each / checkpoint.WEIGHTS).stat().st_size for each in (folder, small)]
    assert sizes[1] < 0.2 * sizes[0]
    (again,) = trained(small, "cpu")[1].values()
    images, nothing = photograph(), torch.empty(1, 0, 128, 128)
    expected, got = network(images, nothing), again(images, nothing)
    assert (expected - got).abs().max() < 0.02
    fold(again)
    torch.testing.assert_close(again(images, nothing), got, rtol=0, atol=1e-4)


def test_weights_of_other_networks_are_refused_in_words(tmp_path):
    source = bundled.FOLDER / "models" / "denoise" / "versions" / "00001"
    other = bundled.FOLDER / "models" / "deblock" / "versions" / "00001"
    folder = tmp_path / "mixed"
    folder.mkdir()
    recipe = (other / checkpoint.RECIPE).read_text()
    checkpoint.fill(
        folder, recipe=recipe, weights=checkpoint.read_tensors(source, checkpoint.WEIGHTS),
        training={}, progress={}, metrics={}, samples=b"", lineage={},
    )  # fmt: skip
    with pytest.raises(Exception, match="not the weights of this recipe's networks"):
        Engine.load(folder)


def test_a_card_that_is_replaced_leaves_the_original_alone(tmp_path):
    """Files of a version are linked, where the disk allows it."""
    models = over(str(tmp_path / "registry"), bundled.FOLDER)
    source = models.fetch(models.resolve("deblock"))
    before = (source / CARD).read_bytes()
    small = compact(source, tmp_path / "small", card="# another\n")
    assert (small / CARD).read_text() == "# another\n"
    assert (source / CARD).read_bytes() == before
    checkpoint.verify(small)


def test_what_float16_cannot_hold_is_refused(tmp_path):
    source = bundled.FOLDER / "models" / "denoise-gray" / "versions" / "00001"
    weights = checkpoint.read_tensors(source, checkpoint.WEIGHTS)
    name = next(iter(weights))
    weights = {key: each.float() for key, each in weights.items()}
    weights[name].view(-1)[0] = 1e5
    folder = tmp_path / "large"
    folder.mkdir()
    checkpoint.fill(
        folder, recipe=(source / checkpoint.RECIPE).read_text(), weights=weights, training={},
        progress={}, metrics={}, samples=b"", lineage={},
    )  # fmt: skip
    with pytest.raises(InputError, match="beyond float16's 65504"):
        compact(folder, tmp_path / "small", half=True)


def test_it_is_known_by_an_address_that_is_good_on_any_machine(tmp_path):
    address = address_of("denoise", str(tmp_path))
    assert address == "bundled:denoise@1"
    folder, verified = folder_at(address)
    assert verified
    assert folder == folder_of("denoise", str(tmp_path))[0] == folder_of(address, "nowhere")[0]


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [("made.webp", (4100, 2), "16,383 pixels a side"), ("made.jpg", (16400, 1), "65,500 pixels")],
)
def test_what_a_format_cannot_hold_is_refused_before_it_is_computed(name, size, told, tmp_path):
    Image.new("RGB", size).save(tmp_path / "wide.png")
    command = ["upscale", str(tmp_path / "wide.png"), "--scale", "4", "-o", str(tmp_path / name)]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert told in str(done.exception)


def test_an_animation_is_refused(tmp_path):
    frames = [Image.new("L", (32, 32), level) for level in (0, 128)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    command = ["deblock", str(tmp_path / "moving.gif"), "-o", str(tmp_path / "made.png")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, InputError)
    assert "has several frames" in str(done.exception)


def test_what_is_nearly_opaque_is_no_hole(tmp_path):
    pixels = np.full((40, 40, 4), 254, np.uint8)
    pixels[10:20, 10:20, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "holed.png")
    command = ["inpaint", str(tmp_path / "holed.png"), "-o", str(tmp_path / "filled.png")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    made = np.array(Image.open(tmp_path / "filled.png").convert("RGB"))
    assert (made[:9] == 254).all()


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("# digits\n\nDraws\ndigits.\n\n## Data\n\nMNIST", "Draws digits."),
        ("---\nlicense: mit\n---\n# It\nDoes it.\r\n\r\nMore.", "Does it."),
        ("# nothing but a heading\n", ""),
        ("", ""),
        ("word " * 100, ("word " * 60)[: GIST - 1] + "…"),
    ],
)
def test_what_a_model_does_is_how_its_card_begins(card, told):
    assert gist(card) == told
