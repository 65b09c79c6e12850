"""An interrupted run, resumed, ends in the same bits as one that was not: every recipe.

On one worker in this process and in a new one, in the precision of the machine; on two workers in
two processes over gloo, in float32.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gang import gang
from safetensors.torch import save_file
from tiny_recipes import tiny

from cluster.disk import LocalStorage
from genimg import checkpoint
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.training.sync import Alone, Collective
from jobs.runs.folder import RunFolder
from jobs.runs.resume import resume
from jobs.runs.worker import Job, work

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


def run(recipe: Recipe, storage: Path, name: str, sync=None, **callbacks) -> list[str]:
    """Work on a run until it ends; returns the warnings."""
    warnings: list[str] = []
    job = Job(recipe.model_dump_json(), name, str(storage))
    work(job, sync or Alone(), CPU, warn=warnings.append, **callbacks)
    return warnings


def after(lines: int) -> Callable[[], bool]:
    """A wish to stop at that line of the log; tiny recipes log every 16 images of 64."""
    answers = iter([*[False] * (lines - 1), True])
    return lambda: next(answers)


def assert_same_state(one: Path, other: Path, ignore: tuple[str, ...] = ()) -> None:
    """Inference weights, trained networks, optimizer moments and progress, bit for bit."""
    for file in (checkpoint.WEIGHTS, checkpoint.TRAINING):
        a, b = checkpoint.read_tensors(one, file), checkpoint.read_tensors(other, file)
        assert a.keys() == b.keys() != set()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert any(name.endswith("exp_avg_sq") for name in a)
    progress = [checkpoint.read_json(place, checkpoint.PROGRESS) for place in (one, other)]
    for tree in progress:
        for key in ignore:
            tree.pop(key, None)
    assert progress[0] == progress[1]


def final(storage: Path, run: str, seen: int = 64) -> Path:
    folder = RunFolder(str(storage), run)
    assert folder.checkpoints()[-1] == seen
    return folder.fetch(seen, storage)


# Others are slow: that any recipe's method goes on bit for bit, and has the same bits on all
# workers, test_methods.py and test_sync.py of the library show.
QUICK = ("dcgan", "vq-vae", "flow", "ffdnet", "detector", "adain")
OTHERS = tuple(name for name in RECIPES if name not in QUICK)


@pytest.fixture(
    scope="module",
    params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def whole(request, tmp_path_factory) -> tuple[Recipe, Path]:
    """A recipe, and a storage with its run `whole` that nothing interrupted."""
    varied = "data.translate=1" if request.param == "draw" else "data.augment=flip"  # of texts
    recipe = tiny(request.param, varied, "train.keep=9")
    storage = tmp_path_factory.mktemp(request.param)
    run(recipe, storage, "whole")
    return recipe, storage


@pytest.mark.parametrize("whole", ["dcgan", "conv-vae", "ffdnet", "classifier"], indirect=True)
def test_stopped_at_a_checkpoint_and_resumed(whole):
    """Of others, workers that are two show it, and the next test, which stops at more places."""
    recipe, storage = whole
    run(recipe, storage, "halves", should_stop=after(2))
    assert RunFolder(str(storage), "halves").checkpoints() == [32]
    assert run(recipe, storage, "halves") == []
    assert_same_state(final(storage, "whole"), final(storage, "halves"))


def test_stopped_thrice_between_checkpoints_and_resumed(whole):
    recipe, storage = whole
    for lines in (1, 1, 1):
        run(recipe, storage, "parts", should_stop=after(lines))
    run(recipe, storage, "parts")
    assert RunFolder(str(storage), "parts").checkpoints() == [16, 32, 48, 64]
    # the history tells of more evaluations; what they share is the same
    assert_same_state(final(storage, "whole"), final(storage, "parts"), ignore=("history",))
    alone, parts = (dict(RunFolder(str(storage), n).history()) for n in ("whole", "parts"))
    assert {seen: parts[seen] for seen in alone} == alone


def test_resumed_where_images_are_mixed_more_and_more(tmp_path):
    mixed = "data.augmentations=[{kind: mixup, begin: 0}, {kind: cutmix, probability: 0.5}]"
    recipe = tiny("classifier", mixed)
    run(recipe, tmp_path, "whole")
    run(recipe, tmp_path, "halves", should_stop=after(1))
    run(recipe, tmp_path, "halves")
    assert_same_state(final(tmp_path, "whole"), final(tmp_path, "halves"), ignore=("history",))


NEW_PROCESS = """
import sys, torch
from genimg.training.sync import Alone
from jobs.runs.worker import Job, work
torch.set_num_threads(int(sys.argv[4]))
work(Job(sys.argv[1], sys.argv[2], sys.argv[3]), Alone(), torch.device("cpu"))
"""


def test_resumed_by_a_new_process(tmp_path):
    recipe = tiny("dcgan")
    run(recipe, tmp_path, "whole")
    run(recipe, tmp_path, "halves", should_stop=after(2))
    arguments = [recipe.model_dump_json(), "halves", str(tmp_path), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *arguments], check=True, cwd=ROOT)
    assert_same_state(final(tmp_path, "whole"), final(tmp_path, "halves"))


def resumed_by_two(names: Collection[str], rank: int, storage: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{storage}/.rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    sync = Collective()
    for name in names:
        recipe = tiny(name, "train.batch_size=16", "train.precision=float32")
        run(recipe, storage, f"{name}-whole", sync)
        first_wants_to_stop = after(3) if rank == 0 else lambda: False
        run(recipe, storage, f"{name}-halves", sync, should_stop=first_wants_to_stop)
        dist.barrier()
        assert RunFolder(str(storage), f"{name}-halves").checkpoints() == [32, 48]
        dist.barrier()
        run(recipe, storage, f"{name}-halves", sync)
    if "dcgan" in names:
        only_the_first_reads(storage, sync)
        changed_data_are_refused_by_all(storage, sync)
    dist.destroy_process_group()


def only_the_first_reads(storage: Path, sync: Collective) -> None:
    """Resumed from a storage of which the second worker sees nothing, both have the same state."""
    recipe = tiny("dcgan", "train.batch_size=16", "train.precision=float32")
    method = recipe.method(CPU)
    folder = RunFolder(str(storage if sync.rank == 0 else storage / "nowhere"), "dcgan-whole")
    fingerprint = open_dataset(recipe.data, recipe.wants).fingerprint
    past = resume(method, folder, sync, print, fingerprint=fingerprint)
    assert method.seen == 64
    assert [seen for seen, _ in past.history] == [32, 64]
    snapshot = method.snapshot()
    dist.barrier()
    mine = storage / f"restored-{sync.rank}"
    mine.mkdir()
    save_file(snapshot.weights, mine / checkpoint.WEIGHTS)
    save_file(snapshot.training, mine / checkpoint.TRAINING)
    (mine / checkpoint.PROGRESS).write_text(json.dumps(snapshot.progress))


def changed_data_are_refused_by_all(storage: Path, sync: Collective) -> None:
    """Although the second worker alone sees other data."""
    recipe = tiny("dcgan", "train.batch_size=16", "train.precision=float32")
    fingerprint = open_dataset(recipe.data, recipe.wants).fingerprint if sync.rank == 0 else "other"
    folder = RunFolder(str(storage), "dcgan-whole")
    with pytest.raises(InputError, match="the data changed since its checkpoint at 64 images"):
        resume(recipe.method(CPU), folder, sync, print, fingerprint=fingerprint)


def two_workers(rank: int, storage: Path) -> None:
    resumed_by_two(QUICK, rank, storage)


def two_workers_of_the_others(rank: int, storage: Path) -> None:
    resumed_by_two(OTHERS, rank, storage)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return gang(two_workers, tmp_path_factory.mktemp("two"), 2)


@pytest.mark.parametrize("name", QUICK)
def test_two_workers_resume_as_exactly_as_one(two, name):
    whole, halves = final(two, f"{name}-whole"), final(two, f"{name}-halves")
    assert_same_state(whole, halves, ignore=("history",))
    assert checkpoint.verify(halves).lineage["workers"] == 2


@pytest.mark.slow
def test_two_workers_resume_the_others_as_exactly(tmp_path):
    storage = gang(two_workers_of_the_others, tmp_path, 2)
    for name in OTHERS:
        whole, halves = final(storage, f"{name}-whole"), final(storage, f"{name}-halves")
        assert_same_state(whole, halves, ignore=("history",))


@pytest.mark.parametrize("rank", [0, 1])
def test_one_worker_reads_the_checkpoint_and_all_have_its_state(two, rank):
    whole = final(two, "dcgan-whole")
    assert_same_state(two / f"restored-{rank}", whole, ignore=("history",))


def test_a_finished_run_is_left_alone(tmp_path):
    recipe = tiny("dcgan")
    run(recipe, tmp_path, "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    run(recipe, tmp_path, "run")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_longer_training_goes_on_from_the_last_checkpoint(tmp_path):
    recipe = tiny("dcgan")
    run(recipe, tmp_path, "run")
    seen: list[int] = []
    longer = recipe.override(["train.images=96"])
    run(longer, tmp_path, "run", progress=lambda at, values: seen.append(at))
    assert seen == [80, 96]
    assert [at for at, _ in RunFolder(str(tmp_path), "run").history()] == [32, 64, 96]


def test_a_damaged_checkpoint_is_passed_over_and_replaced(tmp_path):
    recipe = tiny("dcgan")
    run(recipe, tmp_path, "run")
    weights = final(tmp_path, "run") / checkpoint.WEIGHTS
    good = weights.read_bytes()
    weights.write_bytes(good[:-1])
    (warning,) = run(recipe, tmp_path, "run")
    assert "passed over a damaged checkpoint" in warning
    assert "weights.safetensors" in warning
    assert (final(tmp_path, "run") / checkpoint.WEIGHTS).read_bytes() == good


class Remote(LocalStorage):
    """A store of which nothing lies on this machine: everything is downloaded."""

    def local_path(self, prefix: str) -> None:
        return None


def test_a_run_in_a_remote_store_is_resumed_by_downloading(tmp_path):
    recipe = tiny("dcgan")
    run(recipe, tmp_path, "run", should_stop=after(2))
    folder = RunFolder(str(tmp_path), "run")
    folder.storage = Remote(tmp_path)
    method = recipe.method(CPU)
    data = open_dataset(recipe.data, recipe.wants)
    past = resume(method, folder, Alone(), print, fingerprint=data.fingerprint)
    assert method.seen == 32
    assert [seen for seen, _ in past.history] == [32]


def test_metrics_of_a_checkpoint_are_those_of_its_history(tmp_path):
    run(tiny("dcgan"), tmp_path, "run")
    folder = RunFolder(str(tmp_path), "run")
    history = dict(folder.history())
    assert list(history) == folder.checkpoints() == [32, 64]
    for seen, metrics in history.items():
        path = folder.fetch(seen, tmp_path) / checkpoint.METRICS
        assert json.loads(path.read_text()) == metrics == folder.metrics(seen)
