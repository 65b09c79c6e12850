"""What crosses to an engine and comes back: plain values that can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from genimg.images import Format
    from genimg.precision import Precision


@dataclass(frozen=True)
class Sample:
    """One image for each seed."""

    capability: ClassVar[str] = "sample"

    seeds: tuple[int, ...]
    truncation: float = 1.0
    output_format: Format = "png"
    compression: int | None = None  # output_compression, 0 to 100
    grid: bool = False  # one picture of all the images
    size: str | None = None  # WxH that the images must have; None takes the model's own
    label: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Restore:
    """An encoded image, restored."""

    capability: ClassVar[str] = "restore"
    seeds: ClassVar[tuple[int, ...]] = ()

    image: bytes
    sigma: float | None = None  # on the scale of 0 to 255; None estimates it
    strength: float = 1.0
    tile: int | Literal["auto"] = "auto"  # pixels; 0 restores the image at once
    output_format: Format | None = None  # None: as the image came, or PNG where that cannot hold it
    compression: int | None = None


Request = Sample | Restore


@dataclass(frozen=True)
class Timings:
    """Milliseconds that an answer took."""

    queue: float  # until its batch began
    compute: float  # of its whole batch
    encode: float


@dataclass(frozen=True)
class Answer:
    """Encoded images, and who made them."""

    images: tuple[bytes, ...]
    format: Format
    size: str  # WxH of each image
    seeds: tuple[int, ...]  # none where nothing was drawn at random
    model: str  # id: the reference as configured
    version: int
    timings: Timings
    precision: Precision  # in which it was computed


@dataclass(frozen=True)
class Rejected:
    """A version that should be served and is not."""

    version: int
    reason: str


@dataclass(frozen=True)
class ModelInfo:
    """A served reference. Until it is ready only its id and name are known."""

    id: str  # the reference as configured
    name: str
    state: Literal["ready", "loading"] = "loading"
    version: int | None = None
    capabilities: tuple[str, ...] = ()
    recipe: str | None = None
    size: int | None = None  # side of the images that it makes or was trained on, pixels
    channels: int | None = None
    precision: Precision | None = None  # in which it computes
    metrics: Mapping[str, float] | None = None
    created: str | None = None  # when the version was registered, ISO 8601
    rejected: Rejected | None = None

    def can(self, capability: str) -> bool:
        return capability in self.capabilities
