"""A checkpoint folder: safetensors and JSON, with a manifest that notices any change. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from safetensors import SafetensorError
from safetensors.torch import load_file

from genimg import hashed_files
from genimg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training.safetensors"
PROGRESS = "training.json"
TRAINING_STATE = (TRAINING, PROGRESS)  # a folder without these serves, but cannot be resumed
RECIPE = "recipe.json"
METRICS = "metrics.json"
SAMPLES = "samples.png"
VERSION = "version.json"  # the registry's own, with a digest of its own


@dataclass(frozen=True)
class Manifest:
    """What a folder holds: each file's size and sha256, and where the weights come from."""

    format: int
    files: dict[str, dict[str, Any]]  # name -> {"size": bytes, "sha256": hex}
    lineage: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 of the manifest's own content, so that a change of it is noticed as well."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def text(self) -> str:
        return json.dumps(asdict(self) | {"digest": self.digest()}, indent=2, sort_keys=True) + "\n"


class Content(TypedDict):
    """What a checkpoint is written from."""

    recipe: str  # the recipe's JSON
    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    progress: dict[str, Any]
    metrics: dict[str, float]
    samples: bytes  # a PNG
    lineage: dict[str, Any]


def write(folder: Path, **content: Unpack[Content]) -> Manifest:
    """Write a whole checkpoint as `folder`, which appears at once or not at all.

    An existing folder is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        manifest = fill(draft, **content)
        draft.chmod(0o755)  # mkdtemp makes it private
        old = draft.with_name(f"{draft.name}.old")
        if folder.exists():
            folder.replace(old)  # out of sight at once, where deleting it would take a while
        draft.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
        return manifest
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def fill(folder: Path, **content: Unpack[Content]) -> Manifest:
    """Write a checkpoint's files into an empty folder, the manifest last.

    Every file is written as a stream and hashed on the way: there is no second copy of the
    tensors in memory, and nothing is read again.
    """
    texts = {
        PROGRESS: json.dumps(content["progress"]),
        RECIPE: content["recipe"],
        METRICS: json.dumps(content["metrics"], indent=2) + "\n",
    }
    files = {name: hashed_files.write(folder / name, text.encode()) for name, text in texts.items()}
    files[SAMPLES] = hashed_files.write(folder / SAMPLES, content["samples"])
    files[WEIGHTS] = hashed_files.write_tensors(folder / WEIGHTS, content["weights"])
    files[TRAINING] = hashed_files.write_tensors(folder / TRAINING, content["training"])
    manifest = Manifest(FORMAT, files, content["lineage"])
    (folder / MANIFEST).write_text(manifest.text())
    return manifest


def fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def verify(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder in which every byte is as it was written.

    Raises InputError naming the first file that is missing, truncated, altered or foreign.
    """
    manifest = read_manifest(folder)
    present = {p.name for p in folder.iterdir() if not p.name.startswith(".")} - {MANIFEST, VERSION}
    for name in sorted(present - manifest.files.keys()):
        raise InputError(f"{folder / name}: not part of the checkpoint; remove it")
    for name, expected in manifest.files.items():
        path = folder / name
        if name not in present:
            raise InputError(f"{path}: missing from the checkpoint; copy the folder again")
        if not path.is_file():
            raise InputError(f"{path}: not a file; copy the folder again")
        actual = fingerprint(path)
        if actual["size"] != expected["size"]:
            raise InputError(
                f"{path}: has {actual['size']} bytes where {expected['size']} were written; "
                "copy the folder again"
            )
        if actual != expected:
            raise InputError(f"{path}: altered since it was written; copy the folder again")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest, itself checked, without reading the other files."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no such checkpoint folder")
    if not path.is_file():
        raise InputError(f"{folder}: not a genimg checkpoint (it has no {MANIFEST})")
    try:
        text = path.read_bytes().decode()  # read_text would take \r for \n
        tree = json.loads(text)
        version = tree["format"]
        manifest = Manifest(version, tree["files"], tree["lineage"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a manifest of genimg") from None
    if version != FORMAT:
        raise InputError(f"{path}: format {version}; this genimg reads format {FORMAT}")
    if text != manifest.text():
        raise InputError(f"{path}: altered since it was written; copy the folder again")
    return manifest


def without_training_state(folder: Path, place: Path) -> Path:
    """Make `place` a checkpoint of what inference needs of a verified one; returns it.

    Its manifest lists what it holds and keeps the lineage. Files are linked where the disk allows
    it, so they are to be read only.
    """
    manifest = read_manifest(folder)
    kept = {name: file for name, file in manifest.files.items() if name not in TRAINING_STATE}
    place.mkdir()
    for name in kept:
        try:
            os.link(folder / name, place / name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(folder / name, place / name)
    (place / MANIFEST).write_text(Manifest(FORMAT, kept, manifest.lineage).text())
    return place


def need_training_state(folder: Path) -> None:
    """InputError where a checkpoint has only what inference needs."""
    for name in TRAINING_STATE:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: has no training state ({name}), so no training can go on from it; "
                "take the run's own checkpoint, or register with --with-training-state"
            )


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one safetensors file of a folder, on the CPU."""
    if name in TRAINING_STATE:
        need_training_state(folder)
    try:
        return load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / name}: {error}") from None


def read_json(folder: Path, name: str) -> Any:
    if name in TRAINING_STATE:
        need_training_state(folder)
    return json.loads((folder / name).read_text())
