"""What crosses to an engine and comes back: plain values that can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from genimg.operations import DRAWN, Kind, Operation

if TYPE_CHECKING:
    from genimg import moving
    from genimg.images import Format
    from genimg.precision import Precision


@dataclass(frozen=True)
class Output:
    """How an answer is written."""

    format: Format | moving.Format | None = None  # None: as the image came, else PNG
    compression: int | None = None  # output_compression, 0 to 100
    grid: bool = False  # one picture of all the images
    shown: bool = False  # a picture that shows what is told
    each: bool = False  # each frame as a picture of its own
    size: str | None = None  # WxH that drawn images must have; None takes the model's own
    background: Literal["auto", "opaque", "transparent"] = "auto"  # auto: as the image is
    partials: int = 0  # of a restored image: how often it is shown before it is done, at most
    frames: int | None = None  # of an animation the last so many; None: all
    frame_ms: int | None = None  # milliseconds that each is shown; None: genimg.moving's own


@dataclass(frozen=True)
class Caller:
    """Who asks: a key, or where none is asked for anybody."""

    name: str = ""  # of the key
    models: tuple[str, ...] | None = None  # ids or names that it may use; None: all

    def may_use(self, model: ModelInfo) -> bool:
        return self.models is None or bool({model.id, model.name} & set(self.models))


@dataclass(frozen=True)
class Request:
    """An operation, the files that it is done on, by their parameters, and how it is answered.

    In the place of a mask it may have `markup`, on which is painted what the mask would mark.
    """

    operation: Operation
    files: Mapping[str, bytes] = field(default_factory=dict)
    output: Output = Output()
    caller: Caller = Caller()
    lot: float | None = None  # of serving.lots, where others are answered together with it


@dataclass(frozen=True)
class Timings:
    """Milliseconds that an answer took."""

    queue: float  # until its first pass began
    compute: float  # from then to the end of its last pass
    encode: float


@dataclass(frozen=True)
class Answer:
    """Encoded images, or values, and who made them."""

    images: tuple[bytes, ...]
    format: Format | moving.Format
    size: str  # WxH of each image; empty where there are none
    seeds: tuple[int, ...]  # none where nothing was drawn at random
    model: str  # id: the reference as configured
    version: int
    timings: Timings
    precision: Precision  # in which it was computed
    values: Any = None  # of operations that say something
    labels: tuple[str, ...] = ()  # what each image is of, where the model was told that
    psnr: tuple[float, ...] = ()  # of what latents decode to, dB, where that was found out
    notes: tuple[str, ...] = ()  # what a person should know of what was asked for
    plain_psnr: tuple[float, ...] = ()  # and that of its image's mean colour, beside it
    pixels: int = 0  # given or made, whichever are more


@dataclass(frozen=True)
class Partial:
    """An image that is not done yet."""

    image: bytes
    format: Format | moving.Format
    size: str  # WxH


Show = Callable[[Partial], None]  # told of one, in any thread


@dataclass(frozen=True)
class Rejected:
    """A version that should be served and is not."""

    version: int
    reason: str


@dataclass(frozen=True)
class Beside:
    """Another version that is asked beside the one that a reference names."""

    reference: str
    share: float  # of the requests that it is given
    state: Literal["ready", "loading", "broken"]
    version: int | None = None
    rejected: Rejected | None = None  # why it, or its newer version, cannot be loaded


@dataclass(frozen=True)
class ModelInfo:
    """A served reference. While it is loading only its id and name are known.

    state: asleep: it can be asked, and is loaded, or its replica started, first; broken: it cannot
        be loaded, as `rejected` says
    """

    id: str  # the reference as configured
    name: str
    state: Literal["ready", "loading", "asleep", "broken"] = "loading"
    version: int | None = None
    capabilities: tuple[str, ...] = ()  # operations that it can do
    honours: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # options, by operations, of those that these offer some models only
    about: str | None = None  # what it does, as its card begins
    recipe: str | None = None
    size: int | None = None  # side of the images that it makes or was trained on, pixels
    channels: int | None = None
    scale: int | None = None  # by which it enlarges images; 1 where it does not
    steps: int = 1  # from noise to image, unless asked for; 1 where there are none
    classes: tuple[str, ...] = ()  # that it tells apart, or draws, by their numbers
    words: tuple[str, ...] = ()  # that it can be told, the most frequent of them
    grammar: str | None = None  # of the texts that it has learnt from, where they have one
    directions: tuple[str, ...] = ()  # in which it can move what it draws, by their attributes
    precision: Precision | None = None  # in which it computes
    bytes: int | None = None  # that its weights take in memory
    metrics: Mapping[str, float] | None = None
    created: str | None = None  # when the version was registered, ISO 8601
    rejected: Rejected | None = None
    canary: Beside | None = None  # answers a share of the requests
    shadow: Beside | None = None  # computes a share of them once more, for nobody

    def can(self, capability: str) -> bool:
        return capability in self.capabilities

    def honours_all(self, operation: str, options: Collection[str]) -> bool:
        """Options of those that only some models honour."""
        return not options or set(options).issubset(self.honours.get(operation, ()))


def given_or_made(operation: Operation, given: int, drawn: int, side: int, scale: int) -> int:
    """Pixels that an operation is given, or makes, whichever are more.

    drawn, side: how many images of which side it draws; scale: by how much it enlarges
    """
    if operation.gives in DRAWN:
        return max(given, drawn * side**2)
    return given * scale**2 if operation.gives is Kind.PICTURE else given
