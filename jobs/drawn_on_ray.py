"""Images of seeds drawn by several processes on a Ray cluster: the same ones as by a single one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import ray
from ray.util import ActorPool

from cluster.local import connect
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.results import Pictures
from jobs.runs.addressed import folder_at
from jobs.runs.on_ray import refuse_infeasible

AT_ONCE = 512  # images that a process draws before it sends them
RETRIES = 3  # of these, where a process died


class Drawer:
    """A process with an engine."""

    def __init__(self, model: str, precision: str, overrides: Sequence[str]) -> None:
        folder, verified = folder_at(model)
        self.engine = Engine.load(
            folder, precision=precision, verified=verified, overrides=overrides
        )

    def draw(self, start: int, stop: int) -> tuple[int, Pictures]:
        """(start, images of seeds from there up to `stop`)."""
        return start, self.engine(Sample(n=stop - start, seed=start))


def draw(
    model: str,
    precision: str,
    count: int,
    workers: int,
    progress: Callable[[int, int], None],
    overrides: Sequence[str] = (),
) -> Pictures:
    """The images of seeds 0 to count - 1 by a model.

    Workers have a CPU each, and where the cluster has GPUs one each. InputError where it has too
    few for them.

    model: an address, see jobs.model.address_of
    progress: told how many are drawn, and of how many
    overrides: as for Engine.load
    """
    spans = [(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    images: np.ndarray | None = None
    labels: dict[int, tuple[str, ...]] = {}
    done = 0
    with connect():
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        refuse_infeasible(workers, 1, gpus)
        drawer = ray.remote(
            num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=RETRIES, max_task_retries=RETRIES
        )(Drawer)
        pool = ActorPool([
            drawer.remote(model, precision, overrides) for _ in range(min(workers, len(spans)))
        ])  # fmt: skip
        for start, made in pool.map_unordered(lambda actor, span: actor.draw.remote(*span), spans):
            if images is None:
                images = np.empty((count, *made.images.shape[1:]), made.images.dtype)
            images[start : start + len(made.images)] = made.images
            labels[start] = made.labels
            done += len(made.images)
            progress(done, count)
    assert images is not None, "at least one is drawn"
    names = tuple(name for start in sorted(labels) for name in labels[start])
    return Pictures(images, tuple(range(count)), names)
