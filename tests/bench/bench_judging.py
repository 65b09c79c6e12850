"""How long samples are judged for, beyond drawing them, where real images have been looked at."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import made_data
from bench_engine import fresh
from measuring import Row, finish_queued_work, rate

from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.inference import real_images
from genimg.metrics.sliced_wasserstein import sliced_wasserstein
from genimg.recipes.synthesis import PATCHES
from genimg.yardsticks import Yardstick

SIZE, SAMPLES, COMPARED = 32, 10_000, 8_192  # the last by patches
AT_MOST = 60.0  # seconds of two cores


def measure(quick: bool) -> list[Row]:
    samples, count = (200, 600) if quick else (SAMPLES, made_data.MNIST)
    judge = fresh("classifier")
    judge.digest = "of none, but something to keep by"
    columns = made_data.columns(("image", "label"), SIZE, count, channels=3)
    training, data = Images(columns, Scenes.classes).to(judge.device).hold_out(samples)
    images = real_images(training, range(samples)).flip(3)
    few = min(samples, COMPARED)

    def evaluation() -> None:
        sliced_wasserstein(real[:few], images[:few].to(judge.device), patches=PATCHES * few)
        yardstick = Yardstick(judge, data, training, samples)
        verdict = yardstick.verdict(images)
        yardstick.limits()
        yardstick.nearest(verdict, 8, 7)
        finish_queued_work()

    with tempfile.TemporaryDirectory() as cache, patch.dict("os.environ", GENIMG_CACHE=cache):
        real = real_images(data, range(samples), judge.device)
        evaluation()  # now it is kept
        assert list(Path(cache).rglob("*.safetensors"))
        seconds = 1 / rate(evaluation, 1)
    return [
        Row(
            f"evaluation of {samples:,} samples, {SIZE} x {SIZE}",
            "s",
            ours=seconds,
            at_most=AT_MOST,
            note="all scores by a classifier and by patches; real images looked at before",
        )
    ]
