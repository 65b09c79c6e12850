"""No minute has more than its limit, and what is refused may come as soon as it is told to."""

from hypothesis import given
from hypothesis import strategies as st

from serving.rates import SECONDS, Window

STEPS = st.lists(st.tuples(st.floats(0, 40, allow_subnormal=False), st.integers(1, 9)), max_size=60)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def most_in_a_minute(taken: list[tuple[float, int]]) -> int:
    return max(
        (sum(n for when, n in taken if at <= when < at + SECONDS) for at, _ in taken), default=0
    )


@given(steps=STEPS, limit=st.integers(1, 12), amount=st.sampled_from(["one", "any"]))
def test_no_minute_has_more_than_the_limit_and_one_amount(steps, limit, amount):
    clock = Clock()
    window, taken = Window(clock), []
    for pause, some in steps:
        clock.now += pause
        count = 1 if amount == "one" else some
        if window.used() < limit:
            window.take(count)
            taken.append((clock.now, count))
    largest = max((count for _, count in taken), default=0)
    assert most_in_a_minute(taken) <= limit + largest - 1


@given(steps=STEPS, limit=st.integers(1, 12))
def test_after_the_wait_that_is_told_there_is_room_and_not_before(steps, limit):
    clock = Clock()
    window = Window(clock)
    for pause, count in steps:
        clock.now += pause
        window.take(count)
        wait = window.wait(limit)
        assert (wait == 0) == (window.used() < limit)
        assert wait <= SECONDS + 0.1 + 1e-6
    if steps and wait:
        now = clock.now
        clock.now = now + wait - 1e-3
        assert window.used() >= limit
        clock.now = now + wait + 1e-6
        assert window.used() < limit


def test_many_amounts_take_little_room():
    clock = Clock()
    window = Window(clock)
    for _ in range(20_000):
        clock.now += 0.01
        window.take(1)
    assert 6000 <= window.used() <= 6010
    assert len(window._taken) <= SECONDS * 10 + 2
