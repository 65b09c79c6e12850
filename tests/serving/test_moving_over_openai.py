"""Moving pictures in OpenAI's dialect, by its own client: gif."""

import base64

import numpy as np
import openai
import pytest
from live_server import file_of, opened, pixels
from typer.testing import CliRunner

from genimg import moving
from genimg.operations import OPERATIONS
from jobs.cli import app as verbs


@pytest.fixture(scope="module")
def ai(asking):
    with openai.OpenAI(base_url=f"{asking.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


def files(answer) -> list[bytes]:
    return [base64.b64decode(each.b64_json) for each in answer.data]


def shown(file: bytes) -> list[tuple[int, np.ndarray]]:
    """(milliseconds, pixels) of each frame."""
    image, frames = opened(file), []
    assert image.format == "GIF"
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        frames.append((image.info["duration"], np.asarray(image.convert("RGB"))))
    return frames


def test_an_image_goes_on_as_gif(ai, engines):
    image = pixels(20, 24, 3)
    (made,) = files(
        ai.images.edit(
            model="conv-mixer", image=file_of(image), prompt="", output_format="gif",
            frame_count=6, frame_duration_ms=118,
        )
    )  # fmt: skip
    expected = engines["conv-mixer"](OPERATIONS["animate"](frames=5), image=[image]).images
    assert len(expected) == 6
    assert made == moving.encode(expected, "gif", 120)
    assert sum(duration for duration, _ in shown(made)) == 6 * 120


def test_a_clip_begins_from_a_seed_by_verb_and_by_route(asking, engines, every_recipe, tmp_path):
    expected = engines["frame-vae"](OPERATIONS["animate"](frames=4, seed=5)).images
    options = {"model": "frame-vae", "frames": 4, "seed": 5, "output_format": "gif"}
    answer = asking.post("/v1/images/animate", json=options)
    assert answer.status_code == 200, answer.text
    assert len(shown(answer.content)) == 4
    assert answer.content == moving.encode(expected, "gif")
    answer = asking.post("/v1/images/animate", json=options | {"model": "conv-lstm", "seed": None})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
    words = ["animate", "-m", "frame-vae", "--frames", "4", "--seed", "5"]
    for more in (
        ["--registry", str(every_recipe / "registry")],
        ["--server", str(asking.base_url)],
    ):
        CliRunner().invoke(verbs, [*words, *more, "-o", str(tmp_path / "a.gif")])
        assert (tmp_path / "a.gif").read_bytes() == moving.encode(expected, "gif")
        (tmp_path / "a.gif").unlink()


def test_a_clip_goes_on_from_its_last_frame(ai, engines):
    clip = np.stack([pixels(16, 16, 3, seed=seed) for seed in range(4)])
    sent = moving.encode(clip, "webp")
    answer = ai.images.edit(
        model="conv-lstm", image=sent, prompt="", output_format="gif", frame_count=3
    )
    expected = engines["conv-lstm"](OPERATIONS["animate"](frames=2), image=clip).images
    assert files(answer) == [moving.encode(expected[-3:], "gif", 200)]


def test_futures_are_drawn_by_seeds(ai, engines):
    image = pixels(16, 16, 3)
    options = {"image": file_of(image), "n": 2, "model": "frame-vae"}
    gif = {"output_format": "gif", "frame_count": 4, "seed": 5}
    drawn = [
        ai.images.create_variation(**options, extra_body=gif),
        ai.images.edit(**options, prompt="", extra_body=gif),
    ]
    engine, animate = engines["frame-vae"], OPERATIONS["animate"]
    expected = [
        moving.encode(engine(animate(frames=3, seed=seed), image=[image]).images, "gif", 200)
        for seed in (5, 6)
    ]
    for answer in drawn:
        assert files(answer) == expected
        assert [each.seed for each in answer.data] == [5, 6]
        assert (answer.output_format, answer.size) == ("gif", "16x16")
    at_random = ai.images.edit(**options | {"n": 1}, prompt="", extra_body=gif | {"seed": None})
    seed = at_random.data[0].seed
    again = ai.images.edit(**options | {"n": 1}, prompt="", extra_body=gif | {"seed": seed})
    assert files(again) == files(at_random)


def test_what_is_drawn_goes_from_its_seed_to_the_next(ai, engines):
    gif = {"output_format": "gif", "frame_count": 5, "frame_duration_ms": 50}
    answer = ai.images.generate(model="dcgan", prompt="", n=2, **gif, extra_body={"seed": 3})
    assert [each.seed for each in answer.data] == [3, 4]
    engine, interpolate = engines["dcgan"], OPERATIONS["interpolate"]
    ways = [engine(interpolate(seed=seed, frames=5)).images for seed in (3, 4)]
    assert files(answer) == [moving.encode(way, "gif", 50) for way in ways]
    alone = engine(OPERATIONS["sample"](seed=3, n=3)).images
    for way, first in zip(ways, alone, strict=False):
        assert np.array_equal(way[0], first)


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        ("edits", {"model": "ffdnet", "output_format": "gif"}, "output_format", "cannot animate"),
        ("edits", {"output_format": "svg"}, "output_format", "'png', 'jpeg', 'webp' or 'gif'"),
        ("edits", {"model": "ffdnet", "frame_count": 3}, "frame_count", "only with output_format"),
        ("edits", {"frame_duration_ms": 99}, "frame_duration_ms", "only with output_format=gif"),
        ("edits", {"model": "conv-lstm"}, "output_format", "makes moving pictures; give gif"),
        ("edits", {"model": "ffdnet", "seed": 3}, "seed", "only with output_format=gif"),
        ("edits", {"output_format": "gif", "frame_count": 17}, "frame_count", "17"),
        ("edits", {"output_format": "gif", "frame_count": 1}, "frame_count", "1"),
        ("edits", {"output_format": "gif", "frame_duration_ms": 5}, "frame_duration_ms", "5"),
        ("edits", {"output_format": "gif", "strength": 0.5}, "strength", "not with output_format"),
        ("edits", {"output_format": "gif", "n": 2, "model": "conv-lstm"}, "n", "one future"),
        ("edits", {"output_format": "gif", "seed": 2, "model": "predrnn"}, "seed", "draws nothing"),
        ("variations", {"output_format": "gif", "model": "dcgan"}, "output_format", "animate"),
        ("variations", {"output_format": "gif", "strength": 1}, "strength", "not with"),
        ("variations", {"frame_count": 4, "model": "conv-vae"}, "frame_count", "only with"),
        ("generations", {"output_format": "gif", "model": "ffdnet"}, "output_format", "cannot"),
        ("generations", {"frame_count": 4}, "frame_count", "only with output_format=gif"),
        ("generations", {"output_format": "svg"}, "output_format", "svg"),
        ("generations", {"output_format": "gif", "size": "9x9", "model": "dcgan"}, "size", "16x16"),
        ("generations", {"output_format": "gif", "prompt": "a cat", "model": "dcgan"}, "prompt",
         "takes no prompt"),
        ("generations", {"output_format": "gif", "n": 2, "async": True, "model": "dcgan"}, "async",
         "one image at a time"),
    ],
)  # fmt: skip
def test_what_does_not_move_is_refused_by_name(asking, route, body, param, message):
    if route != "generations":
        body = body | {"image": base64.b64encode(file_of(pixels(16, 16, 3))).decode()}
    answer = asking.post(f"/v1/images/{route}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_frames_that_do_not_differ_are_shown_for_as_long(ai):
    """However long: the format has 16 bits for hundredths of a second."""
    alike = {"frame_count": 16, "frame_duration_ms": 40_000, "extra_body": {"truncation": 0}}
    answer = ai.images.generate(model="dcgan", prompt="", output_format="gif", **alike)
    assert sum(duration for duration, _ in shown(files(answer)[0])) == 16 * 40_000
