"""The learning rate and the decay of averages at each image of a training."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import every_recipe, tiny
from training_steps import started, trained

from genimg.errors import InputError
from genimg.schedule import Train, along, average_decay, burnt_in, learning_rate

SCHEDULES = [
    # decay, warmup, seen, rate / train.lr; 1000 images, 100 a step
    ("constant", 0, 0, 1.0),
    ("constant", 0, 999, 1.0),
    ("constant", 400, 0, 0.2),  # the first step already moves
    ("constant", 400, 300, 0.8),
    ("constant", 400, 400, 1.0),
    ("linear", 0, 0, 1.0),
    ("linear", 0, 250, 0.75),
    ("linear", 0, 1000, 0.0),
    ("linear", 0, 1100, 0.0),  # a run that is made longer later may look back
    ("linear", 400, 300, 0.8 * 0.7),
    ("cosine", 0, 0, 1.0),
    ("cosine", 0, 250, 0.5 + 0.25 * math.sqrt(2)),
    ("cosine", 0, 500, 0.5),
    ("cosine", 0, 1000, 0.0),
]


@pytest.mark.parametrize(("decay", "warmup", "seen", "factor"), SCHEDULES)
def test_learning_rate_schedule(decay, warmup, seen, factor):
    train = Train(images=1000, batch_size=100, lr=0.5, warmup=warmup, decay=decay)
    assert learning_rate(train, seen) == pytest.approx(0.5 * factor, abs=1e-12)


@pytest.mark.parametrize(("seen", "rate"), [(0, 0.5), (200, 0.3), (400, 0.1), (900, 0.1)])
@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_a_rate_ends_where_it_is_told_to_behind_the_burn_in(decay, seen, rate):
    train = Train(images=1000, lr=0.5, lr_end=0.1, burn_in=0.4, decay=decay)
    assert learning_rate(train, seen) == pytest.approx(rate)
    assert burnt_in(train, seen) == min(seen / 400, 1)


def test_half_a_cosine_leads_from_start_to_end():
    assert [along(3, 1, done) for done in (0, 0.5, 1)] == pytest.approx([3, 2, 1])
    assert along(3, 1, 0.25) == pytest.approx(2 + math.sqrt(0.5))
    assert along(0, 4, 0.25) == pytest.approx(4 * math.sin(math.pi / 8) ** 2)
    assert along(3, None, 0.7) == 3


def test_an_end_without_a_decay_is_refused():
    for decay, end in (("constant", 0.1), ("cosine", 0.6)):
        with pytest.raises(InputError, match=f"lr_end={end}: is where a decay leads"):
            tiny("dcgan", "train.lr=0.5", f"train.decay={decay}", f"train.lr_end={end}")


def test_the_second_beta_of_adam_goes_along():
    recipe = tiny("dcgan", "loss.beta2=0.9", "loss.beta2_end=0.98", "train.burn_in=0.5")
    method, betas = started(recipe), []
    for _ in range(6):
        trained(recipe, method, 1)
        betas += [o.param_groups[0]["betas"] for o in method.optimizers.values()]
    middle = [along(0.9, 0.98, done) for done in (0, 0.25, 0.5, 0.75, 1, 1)]
    assert betas == [(0.5, pytest.approx(each)) for each in middle for _ in method.optimizers]


@every_recipe
def test_optimizers_step_at_the_rate_of_the_schedule(name):
    recipe = tiny(name, "train.decay=linear", "train.lr_end=0", "train.warmup=0", "train.lr=0.001")
    method = started(recipe)
    trained(recipe, method, 3)
    rates = [group["lr"] for o in method.optimizers.values() for group in o.param_groups]
    assert rates == [pytest.approx(0.001 * (1 - 16 / 64))] * len(rates)


def test_averages_half_life_ramps_up_to_its_value():
    assert average_decay(1000, seen=100_000, step=1000) == pytest.approx(0.5)
    assert average_decay(1000, seen=100_000, step=2000) == pytest.approx(0.25)
    assert average_decay(1000, seen=20_000, step=1000) == pytest.approx(0.5)  # 5 % are 1000
    assert average_decay(1000, seen=10_000, step=500) == pytest.approx(0.5)  # 5 % are 500
    assert average_decay(0, seen=10_000, step=500) == 0


@given(half_life=st.integers(0, 10**6), seen=st.integers(1, 10**8), step=st.integers(1, 10**4))
def test_averages_decay_is_a_decay_and_composes(half_life, seen, step):
    decay = average_decay(half_life, seen, step)
    assert 0 <= decay < 1
    assert average_decay(half_life, seen, 2 * step) == pytest.approx(decay**2, rel=1e-6, abs=1e-300)
