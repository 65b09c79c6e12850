"""Aliases: promotion, its gates and conflicts, and the way back."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.aliases import Aliases, Promotion
from cluster.disk import LocalStorage
from cluster.gates import Gate, GateFailed
from cluster.moves import Conflict
from cluster.promotion import promote, rollback
from cluster.registry import Registry
from cluster.versions import RegistryError, Unknown


def names(registry: Registry, alias: str = "production") -> int:
    return registry.resolve(f"dcgan@{alias}").number


def test_a_promotion_says_who_replaced_whom_and_when(registry: Registry, register):
    register()
    register()
    promote(registry, "dcgan@1", "production")
    move = promote(registry, "dcgan", "production")
    assert (move.action, move.version, move.previous) == ("promote", 2, 1)
    assert "@" in move.by
    assert move.at.endswith("+00:00")
    history = registry.aliases("dcgan").history
    assert [(entry.previous, entry.version) for entry in history] == [(None, 1), (1, 2)]
    assert history[1] == move


def test_promoting_what_is_named_already_changes_nothing(registry: Registry, register):
    register(fid=1.0)
    promote(registry, "dcgan", "production")
    before = registry.storage.read("models/dcgan/aliases.json")
    move = promote(registry, "dcgan", "production", better_than_holder=("fid", "min"))
    assert move.version == move.previous == 1
    assert registry.storage.read("models/dcgan/aliases.json") == before


def test_rollback_leads_one_promotion_back_each_time(registry: Registry, register):
    for _ in range(4):
        register()
    for number in (1, 2, 3):
        promote(registry, f"dcgan@{number}", "production")
        promote(registry, "dcgan@4", "best") if number == 2 else None
    back = [rollback(registry, "dcgan", "production") for _ in range(2)]
    assert [(move.previous, move.version) for move in back] == [(3, 2), (2, 1)]
    assert names(registry) == 1
    assert names(registry, "best") == 4
    with pytest.raises(RegistryError, match="names version 1, and there is none to go back to"):
        rollback(registry, "dcgan", "production")


def test_rollback_after_rollback_and_promotion_skips_what_was_rolled_back(
    registry: Registry, register
):
    for _ in range(3):
        register()
    promote(registry, "dcgan@1", "production")
    promote(registry, "dcgan@2", "production")
    rollback(registry, "dcgan", "production")
    promote(registry, "dcgan@3", "production")
    assert rollback(registry, "dcgan", "production").version == 1
    assert [move.action for move in registry.aliases("dcgan").history] == [
        "promote", "promote", "rollback", "promote", "rollback",
    ]  # fmt: skip


def test_rollback_passes_over_versions_removed_since(registry: Registry, register):
    for _ in range(3):
        register()
    for number in (3, 1, 2, 1):
        promote(registry, f"dcgan@{number}", "production")
    registry.remove("dcgan@2")
    assert rollback(registry, "dcgan", "production").version == 3  # not 2, nor 1 itself
    assert registry.aliases("dcgan").stack("production") == [3]


@given(st.lists(st.one_of(st.integers(1, 5), st.none()), max_size=30))
def test_any_sequence_of_moves_leads_where_a_plain_undo_stack_leads(moves: list[int | None]):
    """None is a rollback; the model is a list that is appended to and popped."""
    model: list[int] = []
    history: list[Promotion] = []
    for move in moves:
        holder = model[-1] if model else None
        if move is None and len(model) > 1:
            model.pop()
            history.append(Promotion("rollback", "a", model[-1], holder, "x@y", ""))
        elif move is not None and move != holder:
            model.append(move)
            history.append(Promotion("promote", "a", move, holder, "x@y", ""))
    aliases = Aliases(tuple(history))
    assert aliases.stack("a") == model
    assert aliases.holders == ({"a": model[-1]} if model else {})
    assert Aliases.decode(aliases.encode(), "m") == aliases


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ("fid<=12", True), ("fid<=11.99", False), ("fid<12", False), ("fid<12.1", True),
        ("psnr>=28.5", True), ("psnr>28.5", False), ("psnr>=2.86e1", False), (" psnr > 1 ", True),
        ("fid>=-1", True), ("lpips<=1", False), ("nan<=1", False), ("nan>=1", False),
    ],
)  # fmt: skip
def test_gates(registry: Registry, register, gate: str, passes: bool):
    register(fid=12.0, psnr=28.5, nan=math.nan)
    if passes:
        assert promote(registry, "dcgan", "production", gates=["fid<=12", gate]).version == 1
    else:
        with pytest.raises(GateFailed):
            promote(registry, "dcgan", "production", gates=["fid<=12", gate])
        assert registry.aliases("dcgan").holders == {}


def test_a_failed_gate_says_all_that_failed_and_the_metrics_there_are(registry, register):
    register(fid=15.25, kid=math.nan)
    with pytest.raises(GateFailed) as failure:
        promote(registry, "dcgan", "production", gates=["fid<=12", "kid<1", "psnr>=28.5", "fid>1"])
    assert str(failure.value) == (
        "dcgan@1 fails fid<=12 (it is 15.25), kid<1 (it is nan), psnr>=28.5 (there is no psnr); "
        "its metrics: fid 15.25, kid nan"
    )


@pytest.mark.parametrize(
    "text",
    ["", "fid", "fid=12", "fid==12", "<=12", "fid<=", "fid<=low", "fid<=nan", "fid<=inf", "fid=>12",
     "1<fid<2", "a b<1"],
)  # fmt: skip
def test_texts_that_are_no_gates_are_refused(registry: Registry, register, text: str):
    register(fid=1.0)
    with pytest.raises(RegistryError, match="give METRIC, one of <= >= < >, and a number"):
        promote(registry, "dcgan", "production", gates=[text])


@given(st.sampled_from(["<=", ">=", "<", ">"]), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_gates_agree_with_python(relation: str, bound: float, value: float):
    passes = Gate.parse(f"m{relation}{bound!r}").objection({"m": value}) is None
    assert passes == eval(f"{value!r} {relation} {bound!r}")


@pytest.mark.parametrize(
    ("holder", "candidate", "direction", "wins"),
    [
        (10.0, 9.0, "min", True), (10.0, 10.0, "min", False), (10.0, 11.0, "min", False),
        (10.0, 11.0, "max", True), (10.0, 10.0, "max", False), (10.0, 9.0, "max", False),
        (math.nan, 99.0, "min", True), (10.0, math.nan, "min", False),
    ],
)  # fmt: skip
def test_better_than_the_holder_means_strictly(
    registry: Registry, register, holder, candidate, direction, wins
):
    register(fid=holder)
    promote(registry, "dcgan", "production")
    register(fid=candidate)
    if wins:
        promote(registry, "dcgan", "production", better_than_holder=("fid", direction))
    else:
        with pytest.raises(GateFailed, match=r"dcgan@2 .*fid"):
            promote(registry, "dcgan", "production", better_than_holder=("fid", direction))
    assert names(registry) == (2 if wins else 1)


def test_the_first_holder_needs_the_metric_but_beats_nobody(registry: Registry, register):
    register(fid=50.0)
    with pytest.raises(GateFailed, match="dcgan@1 has no psnr; its metrics: fid 50"):
        promote(registry, "dcgan", "production", better_than_holder=("psnr", "max"))
    promote(registry, "dcgan", "production", better_than_holder=("fid", "min"))
    assert names(registry) == 1


def test_expectation_of_another_holder_is_a_conflict(registry: Registry, register):
    register()
    register()
    promote(registry, "dcgan@1", "production", expect=None)
    for expect in (None, 2):
        with pytest.raises(Conflict, match="dcgan@production names version 1, not"):
            promote(registry, "dcgan@2", "production", expect=expect)
    promote(registry, "dcgan@2", "production", expect=1)
    assert names(registry) == 2


@pytest.fixture
def interfered(registry: Registry) -> Registry:
    """Lets somebody else `act` once, right after the first reading of aliases.json."""
    kind = type(registry.storage)

    class Interfered(kind):  # type: ignore[misc, valid-type]
        def read(self, key: str) -> tuple[bytes, str]:
            try:
                return super().read(key)
            finally:
                if key.endswith("aliases.json") and (act := self.__dict__.pop("act", None)):
                    act()

    place = str(registry.storage)
    return Registry(Interfered(Path(place) if kind is LocalStorage else place))


@pytest.mark.parametrize("first", [True, False])
def test_an_alias_that_moves_meanwhile_is_a_conflict(registry, interfered, register, first: bool):
    for _ in range(3):
        register()
    if not first:
        promote(registry, "dcgan@3", "production")
    interfered.storage.act = lambda: promote(registry, "dcgan@1", "production")
    with pytest.raises(Conflict, match=r"moved dcgan@production meanwhile: it names version 1 now"):
        promote(interfered, "dcgan@2", "production")
    assert names(registry) == 1


def test_there_and_back_is_a_move_too(registry, interfered, register):
    for _ in range(3):
        register()
    promote(registry, "dcgan@1", "production")

    def there_and_back() -> None:
        promote(registry, "dcgan@2", "production")
        rollback(registry, "dcgan", "production")

    interfered.storage.act = there_and_back
    with pytest.raises(Conflict, match="it names version 1 now"):
        promote(interfered, "dcgan@3", "production")


def test_another_alias_that_moves_meanwhile_is_none_of_our_business(registry, interfered, register):
    register()
    register()
    interfered.storage.act = lambda: promote(registry, "dcgan@1", "best")
    promote(interfered, "dcgan@2", "production")
    assert registry.aliases("dcgan").holders == {"best": 1, "production": 2}


def test_a_version_removed_meanwhile_is_not_promoted(registry, interfered, register):
    register()
    register()
    interfered.storage.act = lambda: registry.remove("dcgan@1")
    with pytest.raises(Unknown, match="dcgan@1 was removed meanwhile"):
        promote(interfered, "dcgan@1", "production")


def test_a_version_promoted_meanwhile_is_not_removed(registry, interfered, register):
    register()
    interfered.storage.act = lambda: promote(registry, "dcgan@1", "production")
    with pytest.raises(RegistryError, match="dcgan@1 is in use as dcgan@production"):
        interfered.remove("dcgan@1")
    assert registry.verify("dcgan") == []
