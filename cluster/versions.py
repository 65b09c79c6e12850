"""What a model version is: its name and number, its version.json, and the check of its files."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from cluster.disk import files_beneath

MARKER = "version.json"  # written last: a version exists if and only if this does


class RegistryError(Exception):
    """The registry refuses. Commands print it as one line and exit with 2."""


class Unknown(RegistryError):
    """No such model, version or alias: `given`, where there are `known`."""

    def __init__(self, message: str, given: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.given = given
        self.known = tuple(known)


class Damaged(RegistryError):
    """What the registry holds is not what was registered."""


@dataclass(frozen=True)
class File:
    size: int  # bytes
    sha256: str  # hexadecimal


@dataclass(frozen=True)
class Version:
    """A registered checkpoint. Nothing about it changes any more."""

    name: str
    number: int
    created: str  # ISO 8601, UTC
    metrics: Mapping[str, float]  # NaN where a metric came out as no finite number
    lineage: Mapping[str, Any]  # JSON values: recipe, run, data fingerprint, code version
    files: Mapping[str, File]  # by name relative to the version's folder; version.json is not in it
    place: str = field(default="", compare=False)  # of the storage that it was read from

    @property
    def reference(self) -> str:
        """`NAME@7`"""
        return f"{self.name}@{self.number}"

    @property
    def digest(self) -> str:
        """sha256 over the names, sizes and sha256 of all files: equal for equal content."""
        files = {name: asdict(file) for name, file in self.files.items()}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Damage:
    """One thing that verification found wrong."""

    reference: str  # NAME@7
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.reference}: {self.file} {self.problem}"


def encode(version: Version) -> bytes:
    """The content of version.json, which also carries its own sha256.

    Raises RegistryError where metrics or lineage cannot be written as JSON.
    """
    content = {
        "name": version.name,
        "version": version.number,
        "created": version.created,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in version.metrics.items()
        },
        "lineage": version.lineage,
        "files": {name: asdict(file) for name, file in version.files.items()},
    }
    try:
        digest = hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()
        return (json.dumps(content | {"sha256": digest}, indent=2) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RegistryError(f"the lineage is not made of JSON values: {error}") from None


def decode(data: bytes, reference: str) -> Version:
    """The version that `encode` wrote, or Damaged if a single byte differs."""
    try:
        content = json.loads(data)
        version = Version(
            name=content["name"],
            number=content["version"],
            created=content["created"],
            metrics={
                name: math.nan if value is None else value
                for name, value in content["metrics"].items()
            },
            lineage=content["lineage"],
            files={name: File(**file) for name, file in content["files"].items()},
        )
        intact = encode(version) == data and version.reference == reference
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError):
        intact = False
    if not intact:
        raise Damaged(f"{reference}: {MARKER} is altered; restore it, or remove the version")
    return version


def numeric(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats, or RegistryError naming the one that is no number."""
    for name, value in metrics.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise RegistryError(f"metric {name!r} is {value!r}; a metric is a number")
    return {name: float(value) for name, value in metrics.items()}


def fingerprint(folder: Path) -> dict[str, File]:
    """Size and sha256 of every file beneath a folder, but for hidden ones and version.json."""
    names = [name for name in files_beneath(folder) if name != MARKER]
    return {name: File((folder / name).stat().st_size, sha256(folder / name)) for name in names}


def inspect(folder: Path, version: Version) -> list[Damage]:
    """Every file of a version that is altered, missing or extra in a folder, in order of name."""

    def problem(name: str) -> str | None:
        path, file = folder / name, version.files.get(name)
        if file is None:
            return "is extra: it was not registered"
        if not path.is_file():
            return "is missing"
        if (size := path.stat().st_size) != file.size:
            return f"is altered: {size} bytes instead of {file.size}"
        if (digest := sha256(path)) != file.sha256:
            return f"is altered: sha256 {digest[:12]}… instead of {file.sha256[:12]}…"
        return None

    names = sorted({*version.files, *files_beneath(folder)} - {MARKER})
    found = [(name, problem(name)) for name in names]
    return [Damage(version.reference, name, what) for name, what in found if what]


def refuse_damaged(folder: Path, version: Version) -> None:
    """Damaged, naming every file of a version that is not as it was registered."""
    if found := inspect(folder, version):
        raise Damaged("; ".join(map(str, found)))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(kind: str, name: str) -> None:
    """RegistryError unless `name` can be the name of a model or (kind='alias') of an alias."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name):
        raise RegistryError(
            f"{kind} {name!r}: give up to 100 of A-Z a-z 0-9 . _ - with no '.' at the start"
        )
    if kind == "alias" and name.isdigit():
        raise RegistryError(f"alias {name!r}: a number means a version; give the alias a word")


def parse_reference(reference: str) -> tuple[str, int | str | None]:
    """(name, None for NAME | the number for NAME@7 | the alias for NAME@ALIAS)."""
    name, at, selector = reference.partition("@")
    check_name("model", name)
    if not at:
        return name, None
    if re.fullmatch(r"[0-9]{1,9}", selector):
        return name, int(selector)
    if not selector or "@" in selector:
        raise RegistryError(f"{reference!r}: a reference reads NAME, NAME@ALIAS or NAME@7")
    check_name("alias", selector)
    return name, selector
