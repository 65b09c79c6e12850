"""A queue that is shared: bounded, fair to all owners, and nobody's first is taken away."""

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.shares import Full, Shares


@dataclass(eq=False)
class Entry:
    owner: str
    weight: int = 1


def held(entries: list[Entry], owner: str) -> int:
    return sum(each.weight for each in entries if each.owner == owner)


@given(
    asked=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.integers(0, 3)), max_size=60
    ),
    most=st.integers(1, 20),
)
def test_who_has_more_makes_room_for_who_has_less(asked, most):
    shares, inside = Shares[Entry](most), []
    for owner, weight, leaving in asked:
        for each in inside[:leaving]:  # those are served
            shares.leave(each)
        inside = inside[leaving:]
        entry, before = Entry(owner, weight), list(inside)
        try:
            gone = shares.enter(entry)
        except Full:
            assert shares.weight + weight > most
            assert shares.weight == sum(each.weight for each in before), "nobody had to go for it"
            continue
        inside = [each for each in inside if each not in gone] + [entry]
        assert shares.weight == sum(each.weight for each in inside)
        assert shares.weight <= most or len(inside) == 1
        for each in gone:
            assert held(before, each.owner) > held(before, owner) + weight
            assert each is not next(one for one in before if one.owner == each.owner)
        if gone:  # and no more of them than was needed
            assert shares.weight + gone[-1].weight > most


@given(
    greedy=st.lists(st.sampled_from("xyz"), max_size=200),
    most=st.integers(4, 40),
)
def test_a_fourth_of_the_queue_is_everybodys_among_four(greedy, most):
    """Whatever three others ask, the fourth has its part, and all of that stays."""
    shares = Shares[Entry](most)
    for owner in greedy:
        with suppress(Full):
            shares.enter(Entry(owner))
    mine = [Entry("a") for _ in range(most // 4)]
    for entry in mine:
        shares.enter(entry)  # raises where it is refused
    for owner in greedy:
        with suppress(Full):
            assert not set(shares.enter(Entry(owner))) & set(mine)
    assert shares.weight <= most


def test_alone_an_owner_may_have_all_of_it():
    shares = Shares[Entry](3)
    for _ in range(3):
        assert shares.enter(Entry("a")) == []
    with pytest.raises(Full):
        shares.enter(Entry("a"))


def test_each_in_turn_who_was_served_longest_ago_first():
    shares = Shares[Entry](100)
    a, b, c = (
        [Entry(owner) for _ in range(count)] for owner, count in (("a", 3), ("b", 1), ("c", 2))
    )
    every = [*a, *b, *c]
    assert list(shares.in_turn(every)) == [a[0], b[0], c[0], a[1], c[1], a[2]]
    shares.serve("a")
    assert list(shares.in_turn(every))[:3] == [b[0], c[0], a[0]]
    shares.serve("b")
    shares.serve("c")
    assert list(shares.in_turn(every))[:3] == [a[0], b[0], c[0]]
    assert list(shares.in_turn(a)) == a
