"""Restorers of damage that a recipe lists: JPEG, blur, missing pixels, low resolution, any mixture.

genimg train deblocker data.channels=1 --data BSDS400
genimg train upscaler model.scale=4 --data BSDS400
genimg train restorer 'degradations=[{kind: blur}, {kind: noise, high: 30}]' --data PHOTOS
genimg train restorer degradations=[] pairs=true --data FOLDER_WITH_input_AND_target
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from genimg.degradations import AnyDegradation, Shrink
from genimg.models.drunet import DRUNet
from genimg.models.nafnet import NAFNet
from genimg.models.restoring import RestoringNetwork
from genimg.models.upscaling import EDSR, Plain
from genimg.recipes.restoring import Looked, Restoring
from genimg.restoring_losses import RestorationLoss
from genimg.section import Section

Told = Literal["sigma", "quality", "mask"]


class PlainModel(Section):
    network: Literal["plain"] = "plain"
    width: int = Field(48, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(8, ge=1)
    """residual blocks of two 3x3 convolutions"""
    unshuffle: Literal[1, 2, 4] = 2
    """at which part of the resolution it computes: 2 a half; of low resolution images all: 1"""
    branches: bool = True
    """parallel branches in training, folded into one convolution for inference (ECBSR)"""


class DRUNetModel(Section):
    network: Literal["drunet"] = "drunet"
    width: int = Field(32, ge=8)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(3, ge=1, le=4)
    """halvings"""
    blocks: int = Field(2, ge=1)
    """residual blocks at each resolution, down and up"""


class NAFNetModel(Section):
    network: Literal["nafnet"] = "nafnet"
    width: int = Field(16, ge=8)
    """channels at full resolution, doubling at each halving"""
    encoder: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 1, 1), min_length=1, max_length=4)
    """blocks before each halving"""
    middle: int = Field(1, ge=0)
    """blocks at the lowest resolution"""
    decoder: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 1, 1), min_length=1, max_length=4)
    """blocks behind each doubling, the lowest first"""


class EDSRModel(Section):
    network: Literal["edsr"] = "edsr"
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(16, ge=1)
    """residual blocks of two 3x3 convolutions"""


Model = Annotated[
    PlainModel | DRUNetModel | NAFNetModel | EDSRModel, Field(discriminator="network")
]


class Evaluate(Section):
    tests: dict[str, tuple[AnyDegradation, ...]] = Field(min_length=1)
    """damage that it is judged by, by names in which its metrics end"""
    images: int = Field(100, ge=1)
    """whole held-out images, at most"""
    seed: int = Field(0, ge=0, lt=2**63)
    """decides the damage"""
    planes: Literal["all", "luma"] = "all"
    """what is compared: all channels, or of colour images the luma of BT.601 in 16 to 235"""
    border: int = Field(0, ge=0)
    """pixels that are cut off all around before"""


class Restorer(Restoring):
    task: Literal[
        "denoise", "deblock", "deblur", "enhance", "colourise", "inpaint", "upscale", "restore"
    ]
    """the operation that its models do"""
    degradations: tuple[AnyDegradation, ...]
    """what it learns to undo, in the order in which it happens"""
    tells: tuple[Told, ...] = ()
    """what its network is told of the damage; blind to all else"""
    pairs: bool = False
    """learn from pairs on disk, `input/` and `target/`; degradations come on top of them"""
    model: Model = PlainModel()
    loss: RestorationLoss = RestorationLoss(absolute=1)
    evaluation: Evaluate

    @model_validator(mode="after")
    def parts_agree(self) -> Self:
        if not (self.degradations or self.pairs):
            raise ValueError("degradations=[]: nothing to undo; list some, or set pairs=true")
        if (self.scale > 1) != (self.task == "upscale"):
            raise ValueError(
                f"task={self.task}: enlarges by {self.scale}; `upscale` has one `shrink` among its"
                " degradations, and no other task has"
            )
        if self.data.size % self.scale:
            raise ValueError(
                f"data.size={self.data.size}: cannot be shrunk by {self.scale}; use a multiple"
            )
        for key, every in (("degradations", self.degradations), *self.evaluation.tests.items()):
            if scale_of(every) != self.scale and (every or not self.pairs):
                raise ValueError(f"{key}: shrinks by {scale_of(every)}, others by {self.scale}")
            missing = set(self.tells) - {name for each in every for name in each.tells}
            if missing:
                raise ValueError(f"{key}: nothing in it tells {' or '.join(sorted(missing))}")
        if ("mask" in self.tells) != (self.task == "inpaint"):
            raise ValueError(f"task={self.task}: `inpaint` tells a mask, and no other task does")
        return self

    @property
    def wants(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image", "target") if self.pairs else ("image",)

    @property
    def scale(self) -> int:
        return scale_of(self.degradations)

    @property
    def operation(self) -> str:
        return self.task

    @property
    def told(self) -> tuple[str, ...]:
        return self.tells

    @property
    def looked(self) -> Looked:
        ours = self.evaluation
        return Looked(ours.images, ours.seed, ours.planes, ours.border)

    def restorer(self) -> RestoringNetwork:
        channels, maps, scale = self.data.channels, len(self.tells), self.scale
        match self.model:
            case PlainModel() as model:
                return Plain(
                    model.width, model.blocks, channels, maps=maps, scale=scale,
                    unshuffle=model.unshuffle, branches=model.branches,
                )  # fmt: skip
            case DRUNetModel() as model:
                return DRUNet(model.width, model.depth, model.blocks, channels, maps=maps)
            case NAFNetModel() as model:
                return NAFNet(
                    model.width, model.encoder, model.middle, model.decoder, channels, maps=maps
                )
            case EDSRModel() as model:
                return EDSR(model.width, model.blocks, channels, scale=scale)

    def damage(self) -> Sequence[AnyDegradation]:
        return self.degradations

    def tests(self) -> Mapping[str, Sequence[AnyDegradation]]:
        return self.evaluation.tests

    def loss_of(self, restored: Tensor, clean: Tensor) -> Tensor:
        return self.loss(restored, clean)


def scale_of(degradations: Sequence[AnyDegradation]) -> int:
    """By how much they shrink an image, all together."""
    scale = 1
    for each in degradations:
        scale *= each.factor if isinstance(each, Shrink) else 1
    return scale
