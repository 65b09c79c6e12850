"""The loop: its counts, log lines, checkpoints, stops and refusals, on a method of one weight."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import every_recipe, tiny
from torch import nn

from genimg import checkpoint
from genimg.contracts import Batch
from genimg.schedule import Train
from genimg.training.loop import Diverged, Window, crossed, fit
from genimg.training.method import Method, Part
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work

CPU = torch.device("cpu")


class Pull(Method):
    """Pulls one weight along `slope`; its first loss is 1, its second 2, and so on."""

    def __init__(self, train: Train, slope: float = 1.0, bad_step: int = -1) -> None:
        super().__init__({"line": Part(nn.Linear(1, 1))}, train, CPU)
        self.slope = slope
        self.bad_step = bad_step
        self.steps = 0
        self.drawn: list[float] = []

    def learn(self, batch, sync):
        self.steps += 1
        self.drawn.append(torch.rand(()).item())
        loss = self.networks["line"].weight.sum() * self.slope
        if self.steps == self.bad_step:
            loss = loss * float("nan")
        self.step("line", loss, batch, sync)
        self.finish(batch)
        told = self.steps if self.steps != self.bad_step else float("nan")
        return {"loss": torch.tensor(float(told))}


def batches(size: int) -> Iterator[Batch]:
    while True:
        yield Batch({"image": torch.zeros(size, 1, 2, 2)}, torch.arange(size), size)


class Records:
    """What the loop told its surroundings, and when they want it to stop."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.saves: list[int] = []
        self.asked = 0
        self.stop_at = stop_at

    def run(self, method: Pull, size: int) -> None:
        fit(
            method,
            batches(size),
            method.train,
            sync=Alone(),
            log=lambda seen, values: self.lines.append((seen, values)),
            save=lambda method: self.saves.append(method.seen),
            should_stop=self.should_stop,
        )

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_at

    @property
    def logged(self) -> list[int]:
        return [seen for seen, _ in self.lines]


def train(size: int = 8, **keys) -> Train:
    return Train(
        **{"images": 100, "batch_size": size, "checkpoint_every": 50}
        | {"log_every": 20, "log_seconds": 0}
        | keys
    )


def test_logs_and_checkpoints_come_as_their_intervals_are_crossed_and_at_the_end():
    records = Records()
    records.run(Pull(train()), 8)
    assert records.logged == [24, 40, 56, 64, 80, 104]
    assert records.saves == [56, 104]


def test_what_not_every_step_reports_is_a_mean_of_those_that_do():
    method, window = Pull(train()), Window(0, 0, lambda: 0.0)
    for step in range(6):
        losses = {"d": torch.tensor(float(step))}
        window.add(losses | ({"g": torch.tensor(10.0 * step)} if step % 3 == 2 else {}), 1.0)
    _, values = window.close(method, Alone(), stop=False)
    assert (values["d"], values["g"]) == (2.5, 35.0)


@pytest.mark.parametrize(
    ("size", "keys", "logged", "saves"),
    [
        (50, {}, [50, 100], [50, 100]),  # the end is an interval's end too: saved once
        (64, {"log_every": 10, "checkpoint_every": 10}, [64, 128], [64, 128]),
        (8, {"log_every": 1000, "checkpoint_every": 1000}, [104], [104]),
        (8, {"log_every": 1000}, [56, 104], [56, 104]),
        (200, {}, [200], [200]),
    ],
)
def test_intervals_and_batches_of_any_proportion(size, keys, logged, saves):
    records = Records()
    records.run(Pull(train(size, **keys)), size)
    assert (records.logged, records.saves) == (logged, saves)


def test_a_line_of_the_log_holds_the_means_since_the_last_one():
    records = Records()
    records.run(Pull(train()), 8)
    assert [values["loss"] for _, values in records.lines] == [2, 4.5, 6.5, 8, 9.5, 12]
    assert all(values["images_per_second"] > 0 for _, values in records.lines)


def test_the_mean_of_many_steps_is_not_rounded_to_the_precision_of_one():
    window = Window(0, 0, lambda: 0.0)
    for _ in range(400):
        window.add({"loss": torch.tensor(0.9, dtype=torch.bfloat16)}, 1.0)
    _, values = window.close(Pull(train()), Alone(), stop=False)
    assert values["loss"] == pytest.approx(torch.tensor(0.9, dtype=torch.bfloat16).item())


class Clock:
    """Tells the seconds that a method has worked, at `speed` images a second."""

    def __init__(self, method: Method, speed: Callable[[int], float]) -> None:
        self.method, self.speed = method, speed
        self.seen, self.now = method.seen, 0.0

    def __call__(self) -> float:
        done = self.method.seen - self.seen
        self.now += done / self.speed(self.method.seen)
        self.seen += done
        return self.now


def lines_at(speed: Callable[[int], float], **keys) -> tuple[list[int], list[float]]:
    """Where lines of the log were written, and when."""
    method = Pull(train(**{"images": 20_000, "checkpoint_every": 10**6, "log_seconds": 1} | keys))
    clock, seen, when = Clock(method, speed), [], []

    def log(at: int, values: dict[str, float]) -> None:
        seen.append(at)
        when.append(clock())

    fit(method, batches(8), method.train, sync=Alone(), log=log, save=lambda m: None, clock=clock)
    return seen, when


def test_at_a_high_speed_lines_are_a_second_apart_once_the_speed_is_known():
    seen, when = lines_at(lambda at: 2000.0)
    assert seen[0] == 8  # at once, so that one sees that it runs
    gaps = [after - before for before, after in itertools.pairwise(when)]
    assert len(gaps) == pytest.approx(16, abs=2)
    assert gaps[:-1] == pytest.approx([*gaps[:7], *[1] * (len(gaps) - 8)], abs=0.05)
    assert max(gaps[:7]) <= 1.01


def test_at_a_low_speed_lines_come_with_their_number_of_images():
    assert lines_at(lambda at: 15.0, images=100)[0] == [8, 24, 40, 64, 80, 104]


@pytest.mark.parametrize("seconds", [1, 20])
def test_where_their_number_of_images_takes_long_lines_come_by_the_clock(seconds):
    _, when = lines_at(lambda at: 16.0, images=2000, log_every=2000, log_seconds=seconds)
    assert when[0] == 0.5  # after a step
    gaps = [after - before for before, after in itertools.pairwise(when)]
    assert gaps[:-1] == pytest.approx([max(seconds, 8)] * (len(gaps) - 1), abs=0.5)
    assert len(gaps) > 5


def test_where_training_slows_down_or_speeds_up_the_distance_follows():
    _, when = lines_at(lambda at: 4000.0 if at < 10_000 else 400.0)
    gaps = [after - before for before, after in itertools.pairwise(when)]
    assert max(gaps) < 10.1  # one was due in a second, at the speed that was known
    assert gaps[-3] == pytest.approx(1, abs=0.05)


def test_zero_seconds_mean_a_line_at_every_interval():
    seen, _ = lines_at(lambda at: 1e9, images=100, log_seconds=0)
    assert seen == [24, 40, 64, 80, 104]


@given(st.integers(1, 500), st.integers(0, 10_000), st.integers(1, 700))
def test_an_interval_is_crossed_where_a_multiple_of_it_is_reached(every, before, step):
    multiples = [n for n in range(before + 1, before + step + 1) if n % every == 0]
    assert crossed(every, before, before + step) == bool(multiples)


@pytest.mark.parametrize(
    ("stop_at", "seen", "saves"), [(1, 24, [24]), (3, 56, [56]), (4, 64, [56, 64])]
)
def test_asked_to_stop_it_saves_once_and_returns_at_the_next_line(stop_at, seen, saves):
    records, method = Records(stop_at), Pull(train())
    records.run(method, 8)
    assert method.seen == records.logged[-1] == seen
    assert records.saves == saves


def test_a_finished_method_is_not_trained_further():
    records, method = Records(), Pull(train())
    method.seen = 100
    records.run(method, 8)
    assert (method.steps, records.logged, records.saves) == (0, [], [])


def test_what_networks_draw_from_torch_depends_on_the_position_alone():
    whole, half = Pull(train()), Pull(train())
    Records().run(whole, 8)
    Records(stop_at=2).run(half, 8)
    torch.rand(7)  # whoever else draws in between
    Records().run(half, 8)
    assert half.drawn == whole.drawn
    assert len(set(whole.drawn)) == len(whole.drawn) == 13


def test_a_loss_that_is_no_number_ends_the_training_at_the_next_line_with_nothing_saved():
    records = Records()
    with pytest.raises(Diverged, match="loss is nan at 80 images"):
        records.run(Pull(train(), bad_step=9), 8)
    assert records.logged == [24, 40, 56, 64]
    assert records.saves == [56]


def test_a_stop_does_not_save_what_is_no_number():
    records = Records(stop_at=1)
    with pytest.raises(Diverged):
        records.run(Pull(train(), bad_step=2), 8)
    assert records.saves == []


@pytest.mark.parametrize("slope", [float("inf"), float("nan"), 1e25])  # 1e25: only its square is
def test_weights_or_moments_that_are_not_finite_are_not_saved_though_the_loss_is(slope):
    records = Records()
    with pytest.raises(Diverged, match="the weights of the line are not finite at 56 images"):
        records.run(Pull(train(), slope), 8)
    assert records.saves == []


def test_weights_that_are_large_but_finite_are_saved():
    records = Records()
    records.run(Pull(train(lr=1e30)), 8)
    assert records.saves == [56, 104]


@every_recipe
def test_when_a_recipe_diverges_the_last_good_checkpoint_stays(name, tmp_path):
    sane = tiny(name, "train.images=32")
    wild = tiny(name, "train.lr=1e30", "train.warmup=0", "train.images=6400")
    work(Job(sane.model_dump_json(), "run", str(tmp_path)), Alone(), CPU)
    folder = RunFolder(str(tmp_path), "run")
    assert folder.checkpoints() == [32]
    with pytest.raises(Diverged, match=r"at [0-9,]+ images"):
        work(Job(wild.model_dump_json(), "run", str(tmp_path)), Alone(), CPU)
    assert folder.checkpoints() == [32]
    place = folder.fetch(32, tmp_path)
    for file in (checkpoint.WEIGHTS, checkpoint.TRAINING):
        assert all(t.isfinite().all() for t in checkpoint.read_tensors(place, file).values())
