"""What is tried next: every value once, until there is none, also after an interruption."""

import pytest
from ray.tune.search import Searcher

from genimg import recipes
from jobs.sweeps.on_tune import trial_scheduler
from jobs.sweeps.records import Sweep, Trial
from jobs.sweeps.searchers import LearningSearch, RandomSearch
from jobs.sweeps.space import parse_space

FINITE = ["train.batch_size=choice(8,16,32,64)", "data.augment=choice(none,flip)"]
ENDLESS = ["train.lr=loguniform(1e-4,1e-2)"]


def sweep(tmp_path, ranges: list[str]) -> Sweep:
    base = recipes.named("dcgan")
    return Sweep(str(tmp_path), "search", base, parse_space(base, ranges)[1])


def drawn(search, most: int = 100) -> list[dict]:
    found = []
    for number in range(most):
        values = search.suggest(f"id{number}")
        if values == Searcher.FINISHED:
            break
        found.append(values)
    return found


@pytest.mark.parametrize("kind", [RandomSearch, LearningSearch])
def test_a_finite_space_is_tried_to_its_end_without_repetition(tmp_path, kind):
    search = kind(sweep(tmp_path, FINITE), [], [])
    names = [Trial.of(values).name for values in drawn(search)]
    assert len(names) == len(set(names)) == 8
    assert search.exhausted


@pytest.mark.parametrize("kind", [RandomSearch, LearningSearch])
def test_an_interrupted_search_begins_with_what_was_pending_and_goes_on(tmp_path, kind):
    space = sweep(tmp_path, ENDLESS)
    before = drawn(kind(space, [], []), 3)
    after = drawn(kind(space, [], before), 6)
    assert after[:3] == before
    assert len({Trial.of(values).name for values in after}) == 6


@pytest.mark.parametrize("kind", [RandomSearch, LearningSearch])
def test_trials_that_are_over_are_not_tried_again(tmp_path, kind):
    space = sweep(tmp_path, FINITE)
    first = drawn(kind(space, [], []), 5)
    over = [
        Trial(Trial.of(v).name, v, state, results=[(64, {"swd": float(i)})])
        for i, (v, state) in enumerate(
            zip(first, ["finished", "stopped", "no number", "diverged", "infeasible"], strict=True)
        )
    ]
    rest = drawn(kind(space, over, []))
    assert len(rest) == 3
    assert not {Trial.of(v).name for v in rest} & {trial.name for trial in over}


def test_asha_stops_no_trial_before_the_longest_may_end(tmp_path):
    space = sweep(tmp_path, ["train.images=choice(1000,900000)"])
    assert trial_scheduler(space, "asha", [])._max_t == 900_000
    assert trial_scheduler(sweep(tmp_path, ENDLESS), "asha", [])._max_t == space.base.train.images


@pytest.mark.filterwarnings("error")
def test_a_trial_that_starts_again_may_repeat_its_values(tmp_path):
    search = LearningSearch(sweep(tmp_path, ENDLESS), [], [])
    search.suggest("id")
    for step in (1, 2, 1, 2, 3):
        search.on_trial_result("id", {"objective": 3.0, "training_iteration": step})
    search.on_trial_complete("id", {"objective": 2.0, "training_iteration": 3})
    assert [trial.value for trial in search._ot_study.trials] == [2.0]
