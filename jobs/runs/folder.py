"""A run's folder in storage: its recipe, checkpoints and logs; and who writes to it.

STORAGE/RUN/recipe.json
STORAGE/RUN/checkpoints/000012800/   checkpoint folders, named by the images seen
STORAGE/RUN/tensorboard/             event files
"""

from __future__ import annotations

import errno
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential

from cluster.disk import files_beneath, staging_for
from cluster.places import open_storage
from cluster.storage import AlreadyExists, NotFound, Refused, Storage, StorageError
from genimg import checkpoint, recipes
from genimg.errors import InputError
from genimg.recipe import Recipe

LOGS = "tensorboard"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
History = list[tuple[int, dict[str, float]]]  # (images seen, metrics) of each checkpoint

_MAY_CHANGE = {
    f"train.{key}" for key in ("images", "log_every", "log_seconds", "checkpoint_every", "keep")
}
_FOLLOWS_DATA = {"model.shares"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class RunFolder:
    """One run in a storage. Starting the same name again resumes it."""

    def __init__(self, storage: str, name: str) -> None:
        if not NAME.fullmatch(name):
            raise InputError(f"--run {name!r}: use letters, digits, '.', '_' and '-'")
        self.url = storage.rstrip("/") or "/"
        self.storage: Storage = open_storage(storage)
        self.name = name

    def start(self, recipe: Recipe, changed_data: bool = False) -> None:
        """Claim the name for a recipe; an existing run must have the same one.

        Only how long to train and how often to save may differ from the first start, and what
        follows from the data where these may have changed.
        """
        text = recipe.model_dump_json(indent=2).encode()
        try:
            self.storage.create(f"{self.name}/recipe.json", text)
            return
        except AlreadyExists:
            previous, etag = self.storage.read(f"{self.name}/recipe.json")
        if self.differences(previous, recipe, changed_data):
            self.storage.replace(f"{self.name}/recipe.json", text, etag)

    def refuse_other(self, recipe: Recipe, changed_data: bool = False) -> None:
        """What `start` refuses, without claiming the name; and the name of a sweep."""
        if self.storage.exists(f"{self.name}/sweep.json"):
            raise InputError(f"--run {self.name}: is the name of a sweep; give another")
        with suppress(NotFound):
            previous, _ = self.storage.read(f"{self.name}/recipe.json")
            self.differences(previous, recipe, changed_data)

    def differences(
        self, previous: bytes, recipe: Recipe, changed_data: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        """What differs from the recipe of the first start; InputError where it may not."""
        try:
            different = recipes.from_json(previous.decode()).differences(recipe)
        except InputError as error:
            raise InputError(f"{self.url}/{self.name}/recipe.json: {error}") from None
        free = _MAY_CHANGE | (_FOLLOWS_DATA if changed_data else set())
        wrong = {key: pair for key, pair in different.items() if key not in free}
        if wrong:
            wrong = {"recipe": wrong["recipe"]} if "recipe" in wrong else wrong
            before = ", ".join(f"{key}={value}" for key, (value, _) in wrong.items())
            now = ", ".join(f"{key}={value}" for key, (_, value) in wrong.items())
            data = ", or --changed-data where it follows from data that changed"
            raise InputError(
                f"run {self.name!r} was started with {before}, now {now}; give the same"
                f" value{'s' * (len(wrong) > 1)} to resume it (all are in"
                f" {self.url}/{self.name}/recipe.json), or another"
                f" --run{data * (not _FOLLOWS_DATA.isdisjoint(wrong))}"
            )
        return different

    def checkpoints(self) -> list[int]:
        """Images seen at each whole checkpoint, ascending."""
        return sorted(
            int(name)
            for name in self.storage.children(f"{self.name}/checkpoints")
            if self.storage.exists(f"{self.key(int(name))}/{checkpoint.MANIFEST}")
        )

    def key(self, seen: int) -> str:
        return f"{self.name}/checkpoints/{seen:012d}"

    def fetch(self, seen: int, scratch: Path) -> Path:
        """A checkpoint as a local, verified folder: in place, or downloaded beneath `scratch`."""
        folder = self.storage.local_path(self.key(seen))
        if folder is None:
            folder = self.storage.download(self.key(seen), scratch / str(seen))
        checkpoint.verify(folder)
        return folder

    def complete(self, recipe: Recipe) -> bool:
        """Whether nothing is left to train: the newest checkpoint is the last, and undamaged."""
        done = self.checkpoints()
        return bool(done) and done[-1] >= recipe.train.images and self.whole(done[-1])

    def publish(self, seen: int, fill: Callable[[Path], object]) -> None:
        """Save a checkpoint, which appears whole or not at all; `fill(folder)` writes its files.

        Where the storage is on this machine they are written in their place, else uploaded from
        here. Faults that may pass are tried again. One that is there already, from before an
        interruption, stays if it is undamaged. Raises Refused where a disk is full.
        """
        if self.whole(seen):
            return
        self.delete(seen)  # what is damaged, or left by who was killed
        place = self.storage.local_path(self.key(seen))
        if place is not None:
            with suppress(AlreadyExists):  # somebody else was quicker
                for attempt in attempts():
                    with attempt, self.save_errors(seen, self.url), staging_for(place) as draft:
                        fill(draft)
            return
        with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
            draft = Path(scratch)
            with self.save_errors(seen, f"{draft.parent} (TMPDIR), from where it is uploaded"):
                fill(draft)
            marker = f"{self.key(seen)}/{checkpoint.MANIFEST}"  # written last: readers go by it
            with suppress(AlreadyExists):
                for attempt in attempts():
                    with attempt:
                        self.delete(seen)  # what an interrupted attempt left
                        self.storage.upload(draft, self.key(seen), without=[checkpoint.MANIFEST])
                        self.storage.create(marker, (draft / checkpoint.MANIFEST).read_bytes())

    @contextmanager
    def save_errors(self, seen: int, where: str) -> Iterator[None]:
        """Turns what the system refuses into a StorageError that names the place and a remedy."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            kind = Refused if error.errno in _FULL | _FORBIDDEN else StorageError
            remedy = "make that writable" if error.errno in _FORBIDDEN else "make room there"
            raise kind(
                f"{where}: {reason}; run {self.name!r} could not be saved at {seen:,} images; "
                f"{remedy}, and the same command goes on from the last checkpoint"
            ) from error

    def whole(self, seen: int) -> bool:
        """Whether a checkpoint is there of which every byte is as it was written."""
        if not self.storage.exists(f"{self.key(seen)}/{checkpoint.MANIFEST}"):
            return False
        with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
            try:
                self.fetch(seen, Path(scratch))
            except InputError:
                return False
        return True

    def delete(self, seen: int) -> None:
        self.storage.delete(f"{self.key(seen)}/{checkpoint.MANIFEST}")  # first: nobody sees half
        self.storage.delete(self.key(seen))

    def prune(self, keep: set[int]) -> None:
        """Delete other checkpoints, and what was uploaded of some by processes that were killed."""
        place = f"{self.name}/checkpoints"
        uploads = (upload.key.split("/") for upload in self.storage.unfinished(place))
        names = {*self.storage.children(place), *(parts[2] for parts in uploads if parts[2:])}
        for name in names:
            if name.isdecimal() and int(name) not in keep:
                self.delete(int(name))
                self.storage.discard(self.key(int(name)))

    def metrics(self, seen: int) -> dict[str, float]:
        """The evaluation stored with a checkpoint; empty if it is not there."""
        try:
            return json.loads(self.storage.read(f"{self.key(seen)}/{checkpoint.METRICS}")[0])
        except NotFound:
            return {}

    def history(self) -> History:
        """The evaluations at all checkpoints up to the newest, also those pruned since."""
        done = self.checkpoints()
        if not done:
            return []
        data, _ = self.storage.read(f"{self.key(done[-1])}/{checkpoint.PROGRESS}")
        return [(seen, metrics) for seen, metrics in json.loads(data)["history"]]

    def best(self, recipe: Recipe) -> int:
        """Images seen at the best checkpoint that there is."""
        done = set(self.checkpoints())
        return best(recipe, [entry for entry in self.history() if entry[0] in done])

    def path(self, seen: int) -> str:
        """Where a person finds a checkpoint."""
        return f"{self.url}/{self.key(seen)}"

    def log_folder(self) -> Path | None:
        """Where event files are written: in the run's folder, if that is on this machine."""
        place = self.storage.local_path(self.name)
        return None if place is None else place / LOGS

    def publish_logs(self, folder: Path) -> None:
        """Copy event files from where they are written to a run's folder that is elsewhere."""
        for name in files_beneath(folder):
            self.storage.write(f"{self.name}/{LOGS}/{name}", (folder / name).read_bytes())


def best(recipe: Recipe, history: History) -> int:
    """Images seen at the evaluation that the recipe's objective ranks first, or at the last."""
    if recipe.last_is_best:
        return history[-1][0]
    name, direction = recipe.chosen_by
    sign = 1 if direction == "max" else -1
    values = [sign * metrics.get(name, math.nan) for _, metrics in history]
    ranked = [-math.inf if math.isnan(value) else value for value in values]
    return history[ranked.index(max(ranked))][0]


def attempts() -> Retrying:
    """Attempts, with growing pauses, for faults of the network or the store that may pass."""
    return Retrying(
        stop=stop_after_attempt(6),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry=retry_if_exception(may_pass),
        reraise=True,
    )


def may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and not isinstance(error, (AlreadyExists, Refused))
