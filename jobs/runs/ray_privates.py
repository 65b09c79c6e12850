"""What touches the privates of Ray Train (2.60): the one place to look at with the next version."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any, cast

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.constants import (
    DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util.placement_group import NODE_ID_LABEL_KEY

from jobs.runs.board_actor import BoardActor

_ANSWER = 5.0  # seconds in which the board should answer the controller


def prepare_environment() -> None:
    """How often workers are looked after and how long a group may take to start; less to read, and
    no actor beside each group that would tell it of nodes about to go, for which nobody listens."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    logging.getLogger("ray.train").setLevel(logging.WARNING)


class Trainer(TorchTrainer):
    """A trainer that can be ended from another thread, and that saves before it resizes."""

    def __init__(self, *arguments: Any, board: BoardActor, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.board = board
        self.controller: Any = None  # a handle of an actor, once there is one
        self.ended = False

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        """Without that of Ray Data, whose actor takes seconds to start and hands out nothing."""
        every = super()._create_default_callbacks()
        return [each for each in every if not isinstance(each, DatasetsCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        """As Ray's own, which keeps the controller to itself."""
        config = cast(ScalingConfig, self.scaling_config)  # declared as that of Ray Train's V1
        if config.elasticity_enabled:
            arguments["scaling_policy"] = SaveThenResize(config, self.board)
        variables = get_env_vars_to_propagate()
        variables.setdefault(
            RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR,
            DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
        )
        kind = ray.remote(TrainController).options(
            num_cpus=0,
            label_selector={NODE_ID_LABEL_KEY: ray.get_runtime_context().get_node_id()},
            runtime_env={"env_vars": variables},
        )
        self.controller = kind.remote(**arguments)
        if self.ended:  # meanwhile
            ray.kill(self.controller)
        ray.get(self.controller.run.remote())
        return ray.get(self.controller.get_result.remote())

    def end(self, patience: float) -> None:
        """End the controller and its workers, so that what they held is free; `fit` then raises.

        Where the controller does not answer for `patience` seconds it is killed, and Ray's own
        cleaner gives back what the workers held.
        """
        self.ended = True
        if self.controller is None:
            return
        try:
            ray.get(self.controller.abort.remote(), timeout=patience)
        except RayActorError:  # which is how it ends
            pass
        except GetTimeoutError:
            with suppress(RayError):
                ray.kill(self.controller)


class SaveThenResize(ElasticScalingPolicy):
    """Resizes a group only when it has saved its work, and rests.

    Ray's own policy shuts the group down at once, with all work since the last checkpoint.
    """

    def __init__(self, scaling_config: ScalingConfig, board: BoardActor) -> None:
        super().__init__(scaling_config)
        self.board = board
        self.wanted: ResizeDecision | None = None

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        considered = self._latest_monitor_time
        decision = super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )
        if isinstance(decision, ResizeDecision):
            self.wanted = decision
        elif self.wanted and self._latest_monitor_time != considered:  # it is no longer so
            self.wanted = None
            self.board.go_on.remote()
        if self.wanted and self.rests():
            decision, self.wanted = self.wanted, None
            return decision
        return NoopDecision()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        self.wanted = None
        return super().make_decision_for_non_running_worker_group()

    def rests(self) -> bool:
        try:
            return ray.get(self.board.ask_to_rest.remote(), timeout=_ANSWER)
        except (RayActorError, GetTimeoutError):  # it is being restarted: asked again later
            return False
