"""The board as an actor: where it is placed, and what may be asked of it, with its types."""

from __future__ import annotations

from contextlib import suppress
from typing import ParamSpec, Protocol, TypeVar, cast

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.runs.board import Board, News, Wishes

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Question(Protocol[Given, Answer]):
    """A method of an actor."""

    def remote(self, *values: Given.args, **named: Given.kwargs) -> ObjectRef[Answer]: ...


class BoardActor(Protocol):
    """The methods of Board, as its handle has them; see there. Ray's own type has none."""

    post: Question[[News], None]
    fail: Question[[Exception], None]
    failed: Question[[], bool]
    read: Question[[], News]
    ask_to_stop: Question[[bool], None]
    wishes: Question[[], Wishes]
    ask_to_rest: Question[[], bool]
    rests: Question[[], None]
    go_on: Question[[], None]


def place_board() -> BoardActor:
    """A board on this very node: it should outlast every node that may be lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return cast(BoardActor, kind.remote())


def remove_board(board: BoardActor) -> None:
    with suppress(RayError):
        ray.kill(cast("ActorHandle[Board]", board))
