"""Every operation of every recipe that can do it: alike alone, in company, by verb and by HTTP."""

import base64
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from live_server import file_of, opened, pixels
from operation_inputs import sent
from tiny_recipes import QUICK
from typer.testing import CliRunner

from genimg.contracts import Ability
from genimg.engine import Engine, Stopped
from genimg.errors import InputError
from genimg.explored import MOST_TRIED
from genimg.masks import palette
from genimg.moving import FRAME_MS
from genimg.operations import OPERATIONS, Kind
from genimg.recipes import RECIPES
from genimg.results import Grid, Latents, Pictures
from jobs.cli import app as verbs

ABLE = [(name, recipe) for recipe in RECIPES for name in RECIPES[recipe]().can()]
FIRST = dict(reversed(ABLE))  # which recipe can do it
able = pytest.mark.parametrize(  # recipes of each method, and any operation; the others are slow
    ("name", "recipe"),
    [
        pytest.param(*each, marks=() if each[1] in (*QUICK, FIRST[each[0]]) else pytest.mark.slow)
        for each in ABLE
    ],
)
PICTURES = [pixels(16, 16, 3), pixels(37, 23, 3), pixels(9, 30), pixels(20, 12, 4)]


def asked(name: str, engine: Engine, number: int) -> tuple[dict, dict]:
    """(options, inputs) of the request of a number."""
    fields = OPERATIONS[name].model_fields
    honoured = engine.abilities[name].conditions
    seeded = "seed" in fields and "seed" in honoured | (fields.keys() - OPERATIONS[name].conditions)
    options = {"seed": 7 * number} if seeded else {}
    options |= {"n": 1 + number % 3} if "n" in fields else {}
    if "iterations" in honoured:
        options |= {"starts": 2, "iterations": 3}
    if "dims" in fields and engine.abilities[name].latent > MOST_TRIED:
        options |= {"dims": "0,7"}
    options |= {"styles": "3,14"} if "styles" in fields else {}
    options |= {"sigma": 25.0} if "sigma" in fields and "sigma" in honoured else {}
    inputs = {}
    reads = "image" in engine.abilities[name].takes
    options |= {"of": 3 + number} if "of" in fields and not reads else {}
    for key, kind in OPERATIONS[name].takes.items():
        given = kind is Kind.FRAMES or (reads and kind in (Kind.PICTURE, Kind.MASK))
        if key in OPERATIONS[name].optional and not given:
            continue
        if kind is Kind.PICTURE:
            image = PICTURES[(number + len(inputs)) % len(PICTURES)]
            inputs[key] = picture_for(engine.abilities[name], image)
        elif kind is Kind.MASK:
            inputs[key] = mask_for(inputs["image"])
        elif kind is Kind.FRAMES:
            clip = np.random.default_rng(number).integers(0, 256, (1 + number % 5, 18, 13, 3))
            inputs[key] = clip.astype(np.uint8)
        else:
            random = np.random.default_rng(number)
            inputs[key] = random.normal(size=(2, engine.abilities[name].latent))
    return options, inputs


def picture_for(ability: Ability, image: np.ndarray) -> np.ndarray:
    """[H, W, C] of a picture; of classes in their colours, where masks are taken."""
    image = image if image.ndim == 3 else image[..., None]
    return palette()[image[..., 0] % ability.masked] if ability.masked else image


def mask_for(image: np.ndarray) -> np.ndarray:
    """That marks a part of it, some of that softly."""
    mask = np.zeros((*image.shape[:2], 1), np.uint8)
    mask[2:6, 3:] = 255
    mask[6:8, 3:] = 100
    return mask


def called(*words: str) -> None:
    """A verb in this process, or `denoise`, as a person would, in one of its own."""
    if words[0] == "denoise":
        subprocess.run([sys.executable, "-m", "jobs.cli", *words], check=True)
    else:
        assert CliRunner().invoke(verbs, words, catch_exceptions=False).exit_code == 0


def plain(made) -> np.ndarray | list:
    """What is compared of a result."""
    if isinstance(made, Grid):
        return made.sheet()[None]
    if isinstance(made, Pictures):
        return made.images
    return made.array if isinstance(made, Latents) else made.values


def alike(one, other) -> bool:
    """Gray images have a channel, or none, or three alike, by the format."""
    if isinstance(one, np.ndarray) and other.ndim == 4 and other.shape[3] == 1:
        one = one[..., None] if one.ndim == 3 else one
        other = np.broadcast_to(other, one.shape)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@able
def test_a_row_has_the_same_bits_alone_and_in_company(engines, name, recipe):
    engine, operation = engines[recipe], OPERATIONS[name]
    alone, plans = [], []
    for number in range(4):
        options, inputs = asked(name, engine, number)
        alone.append(plain(engine(operation(**options), **inputs)))
        plans.append(engine.plan(operation(**options), **inputs))
    left = [(plan, 0) for plan in plans]
    while left:  # all laps of a key that are next, in one pass
        key = left[0][0].lap(left[0][1])[0]
        now = [(plan, row) for plan, row in left if plan.lap(row)[0] == key]
        parts = [(plan, row, plan.lap(row)[1]) for plan, row in now]
        engine.compute(name, parts)
        left = [each for each in left if each not in now]
        left += [(plan, stop) for plan, _, stop in parts if stop < plan.count]
    for made, plan in zip(alone, plans, strict=True):
        assert alike(plain(plan.result()), made)


@able
def test_it_ends_between_passes(engines, name, recipe):
    options, inputs = asked(name, engines[recipe], 0)
    with pytest.raises(Stopped):
        engines[recipe](OPERATIONS[name](**options), alive=lambda: False, **inputs)


@able
def test_http_gives_what_the_engine_gives_whoever_asks_beside(asking, engines, name, recipe):
    engine = engines[recipe]
    requests = [asked(name, engine, number) for number in range(5)]

    def answer(request: tuple[dict, dict]):
        options, inputs = request
        files = {key: sent(OPERATIONS[name].takes[key], given) for key, given in inputs.items()}
        json = OPERATIONS[name].gives in (Kind.LATENTS, Kind.VALUES)
        response = asking.post(
            f"/v1/images/{name}",
            params=options | {"model": recipe} | ({} if json else {"response_format": "b64_json"}),
            files=files or None,
        )
        assert response.status_code == 200, response.text
        assert response.headers["server-timing"].startswith("queue;dur=")
        assert "Server-Timing" in response.headers["access-control-expose-headers"]
        data = response.json()["data"]
        if json:
            return np.array(data, np.float32) if OPERATIONS[name].gives is Kind.LATENTS else data
        images = [opened(base64.b64decode(each["b64_json"])) for each in data]
        if OPERATIONS[name].gives is Kind.FRAMES:
            frames = []
            for frame in range(images[0].n_frames):
                images[0].seek(frame)
                array = np.asarray(images[0].convert("RGB"))
                # equal ones are one, which lasts longer; a single one lasts for ever
                shown = round(images[0].info.get("duration", 0) / FRAME_MS)
                frames += [array] * (shown or OPERATIONS[name](**options).drawn)
            return np.stack(frames)
        arrays = [np.asarray(image) for image in images]
        return np.stack([each if each.ndim == 3 else each[..., None] for each in arrays])

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(answer, requests))
    for (options, inputs), made in zip(requests, answers, strict=True):
        assert alike(made, plain(engine(OPERATIONS[name](**options), **inputs)))


OUTPUTS = {  # of verbs; in the first of them is all that an engine gives
    Kind.PICTURE: ["a.png"],
    Kind.LATENTS: ["a.npy"],
    Kind.VALUES: ["a.json"],
    Kind.PICTURES: ["folder", "a.png"],
    Kind.FRAMES: ["folder", "a.gif", "a.png"],
    Kind.GRID: ["a.png", "folder"],
}


def contents(place: Path) -> dict[str, bytes]:
    """The images that were written: a file, or those of a folder."""
    written = [place] if place.is_file() else sorted(place.glob("*.png"))
    return {file.name: file.read_bytes() for file in written}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_verb_gives_what_the_engine_gives_here_and_by_a_server(
    asking, every_recipe, engines, name, tmp_path, monkeypatch
):
    recipe = next(recipe for each, recipe in ABLE if each == name)
    options, inputs = asked(name, engines[recipe], 0)
    monkeypatch.chdir(tmp_path)
    operation = OPERATIONS[name]
    command = [name]
    for key, value in options.items():
        command += [f"-{key}" if len(key) == 1 else f"--{key}", str(value)]
    for key, given in inputs.items():
        ends = {Kind.LATENTS: "npy", Kind.FRAMES: "webp"}
        source = tmp_path / f"{key}.{ends.get(operation.takes[key], 'png')}"
        source.write_bytes(sent(operation.takes[key], given))
        beside = key in operation.beside
        command += [f"--{key}", str(source)] if beside else [str(source), "-m", recipe]
    if not inputs:
        command += ["-m", recipe] if "image" in operation.takes else [recipe]
    for output in [*OUTPUTS[operation.gives], *(["shown.png"] if operation.shows else [])]:
        called(*command, "-o", output, "--registry", str(every_recipe / "registry"))
        called(*command, "-o", f"there/{output}", "--server", str(asking.base_url))
        assert contents(tmp_path / "there" / output) == contents(tmp_path / output)
    expected = plain(engines[recipe](operation(**options), **inputs))
    match operation.gives:
        case Kind.PICTURE | Kind.GRID:
            made = np.asarray(opened((tmp_path / "a.png").read_bytes()))[None]
        case Kind.LATENTS:
            made = np.load("a.npy")
        case Kind.VALUES:
            made = list(json.loads((tmp_path / "a.json").read_text()).values())
        case _:
            files = sorted((tmp_path / "folder").glob("*.png"))
            made = np.stack([np.asarray(opened(file.read_bytes())) for file in files])
    assert alike(made, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_option_has_the_same_words_default_and_limits_wherever_it_is_told(asking, name):
    operation = OPERATIONS[name]
    declared = operation.model_json_schema()["properties"]
    (told,) = (each for each in asking.get("/v1/operations").json()["data"] if each["name"] == name)
    assert told["options"]["properties"] == declared
    route = asking.get("/openapi.json").json()["paths"][f"/v1/images/{name}"]["post"]
    documented = {each["name"]: each["schema"] for each in route["parameters"]}
    command = next(each for each in verbs.registered_commands if each.name == name)
    options = {
        key: annotation.__metadata__[0]
        for key, annotation in command.callback.__annotations__.items()
        if key in declared
    }
    assert options.keys() == declared.keys()
    for key, details in declared.items():
        assert documented[key]["description"] == details["description"]
        assert documented[key].get("default") == details.get("default")
        assert details["description"] in options[key].help
        for limit in ("minimum", "maximum"):
            if limit in details:
                assert details[limit] == documented[key]["anyOf"][0][limit]


@able
def test_what_a_model_does_not_honour_is_refused_by_name(engines, name, recipe):
    engine = engines[recipe]
    for option in OPERATIONS[name].conditions - engine.abilities[name].conditions:
        _, inputs = asked(name, engine, 0)
        numbers = {"sigma": 25.0, "quality": 10, "steps": 8, "guidance": 2.0, "seed": 3}
        value = (numbers | {"starts": 2, "iterations": 3}).get(option, "x")
        told = re.escape(f"{option}={value!r}: this {recipe} takes no {option}")
        with pytest.raises(InputError, match=told):
            engine(OPERATIONS[name](**{option: value}), **inputs)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, each in OPERATIONS.items()
        if each.takes.get("image") is Kind.PICTURE and name != "vary"
    ],
)
def test_over_a_folder_it_gives_what_it_gives_of_each(
    every_recipe, engines, name, tmp_path, monkeypatch
):
    recipe = next(recipe for each, recipe in ABLE if each == name)
    engine, operation = engines[recipe], OPERATIONS[name]
    options, _ = asked(name, engine, 0)
    monkeypatch.chdir(tmp_path)
    for folder in ("given", *operation.beside):
        Path(folder).mkdir()
    goes_with: list[dict[str, np.ndarray]] = []
    pictures = [picture_for(engine.abilities[name], image) for image in PICTURES]
    for number, image in enumerate(pictures):
        Path(f"given/{number}.png").write_bytes(file_of(np.squeeze(image)))
        made_for = {"mask": mask_for(image), "style": PICTURES[number - 1]}
        goes_with.append({key: made_for[key] for key in operation.beside})
        for key, picture in goes_with[-1].items():
            Path(f"{key}/{number}.png").write_bytes(file_of(np.squeeze(picture)))
    command = [name, "given", "-m", recipe, "--registry", str(every_recipe / "registry")]
    command += ["-o", "made" if operation.gives is Kind.PICTURE else "made.json"]
    for key in operation.beside:
        command += [f"--{key}", key]
    called(*command, *(f"--{key}={value}" for key, value in options.items()))
    for number, image in enumerate(pictures):
        beside = {key: np.atleast_3d(each) for key, each in goes_with[number].items()}
        expected = plain(engine(operation(**options), image=image, **beside))[0]
        if operation.gives is Kind.PICTURE:
            made = np.asarray(opened(Path(f"made/{number}.png").read_bytes()))
            assert np.array_equal(made.reshape(expected.shape), expected)
        else:
            told = json.loads(Path("made.json").read_text())[f"given/{number}.png"]
            assert alike(told if operation.gives is Kind.VALUES else np.float32(told), expected)
