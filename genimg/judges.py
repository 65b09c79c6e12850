"""Who may look at generated images: the engine of a classifier, or Inception from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from genimg import rng
from genimg.checkpoint import fingerprint
from genimg.contracts import Ability, Rows
from genimg.errors import InputError
from genimg.inference import Inference, prepared
from genimg.models.inception import CLASSES, SIDE, Inception
from genimg.passes import rows_at_once
from genimg.precision import Precision

FILE = "weights-inception-2015-12-05-6726825d.pth"  # of torch-fidelity's release v0.2.0
_COUNTER = "num_batches_tracked"  # of batch normalisation, which inference has no use for


class Judge(Protocol):
    """What is asked of a judge; engines of classifiers have it.

    networks: among them `classifier`, which has `features` and `to_logits`
    abilities: among them `classify`, with the channels that it takes and names of its classes
    digest: of its weights; empty: nothing that it sees is kept
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    @property
    def abilities(self) -> Mapping[str, Ability]: ...

    @property
    def inference(self) -> Inference: ...

    @property
    def digest(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def device(self) -> torch.device: ...


class InceptionJudge:
    """Inception v3 as a judge of images of any size: its FID is the one that papers give.

    That is, where its weights are torch-fidelity's, which the digest tells: sha256 of the file.
    """

    precision: Precision = "float32"  # published scores are

    def __init__(self, network: Inception, digest: str, device: str | torch.device) -> None:
        network = network.to(device).eval().requires_grad_(False)
        self.networks = {"classifier": prepared(network, self.precision)}
        self.digest = digest
        self.device = torch.device(device)

        def compute(rows: Rows) -> Rows:
            return {"scores": network.to_logits(network.features(rows["image"])).softmax(dim=1)}

        names = tuple(f"inception {number}" for number in range(CLASSES))
        self.abilities = {"classify": Ability(compute, 3, classes=names)}
        most = rows_at_once(SIDE**2, self.device)
        examples = rng.normal(torch.arange(most), (3, 32, 32)).clamp(-1, 1).to(self.device)
        inference = Inference(self.networks, self.precision, most=most)
        self.inference = inference.establish((compute, {"image": examples}))

    @classmethod
    def load(cls, path: Path, device: str | torch.device | None = None) -> Self:
        """Of a file as torch-fidelity has it. Raises InputError for any other.

        device: where it computes; None takes the GPU if there is one
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        network = Inception()
        load(network, read(path), path)
        return cls(network, fingerprint(path)["sha256"], device)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that PyTorch has written, by their names. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give torch-fidelity's {FILE}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # on damaged files the unpickler raises almost anything
        found = None
    if not (isinstance(found, dict) and all(map(is_named, found.items()))):
        raise InputError(f"{path}: not a file of PyTorch's tensors; give torch-fidelity's {FILE}")
    return found


def is_named(item: tuple[object, object]) -> bool:
    """Whether it is a tensor and its name."""
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def load(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network that has just these, or InputError with the first difference."""
    mine, theirs = (
        {name: tuple(each.shape) for name, each in every.items() if not name.endswith(_COUNTER)}
        for every in (network.state_dict(), tensors)
    )
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            has, wanted = (every.get(name, "nothing") for every in (theirs, mine))
            raise InputError(
                f"{path}: not the weights of FID's Inception v3: {name} is {has}, not {wanted}; "
                f"give torch-fidelity's {FILE}"
            )
    network.load_state_dict({name: tensors[name] for name in mine}, strict=False)
