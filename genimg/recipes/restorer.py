"""Restorers of damage that a recipe lists: JPEG, blur, missing pixels, low resolution, any mixture.

genimg train deblocker data.channels=1 --data BSDS400
genimg train upscaler 'degradations=[{kind: shrink, scale: 4}]' \\
    'evaluation.tests={shrunk: [{kind: shrink, scale: 4}]}' --data BSDS400
genimg train restorer 'degradations=[{kind: blur}, {kind: noise, high: 30}]' --data PHOTOS
genimg train restorer degradations=[] pairs=true --data FOLDER_WITH_input_AND_target
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from genimg.degradations import Degradation
from genimg.degradations.blur import Blur
from genimg.degradations.holes import Holes
from genimg.degradations.jpeg import JPEG
from genimg.degradations.light import Gray, Light
from genimg.degradations.noise import Noise
from genimg.degradations.resampling import Shrink
from genimg.models.filling import Filled
from genimg.models.restoring import RestoringNetwork
from genimg.recipe import Data, Recipe
from genimg.recipes.looked import Looked, More
from genimg.recipes.networks import (
    DRUNetModel,
    Model,
    NAFNetModel,
    PlainModel,
    network_of,
    refuse_single,
    scales_of,
)
from genimg.recipes.restoring import Restoring
from genimg.recipes.stages import Loss, help_method, method_of, refuse_start
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Method
from genimg.training.restoration import Restoration

Told = Literal["sigma", "quality", "mask"]

TELLS = {"noise": "sigma", "jpeg": "quality", "holes": "mask"}  # what kinds of damage can tell

PATCHES = Data(size=96, channels=3, fit="crop", augment="dihedral", holdout=20)
TRAIN = Train(
    images=200_000, batch_size=16, lr=1e-3, warmup=1_600, decay="cosine", ema_half_life=5_000,
    clip_norm=1.0, checkpoint_every=20_000,
)  # fmt: skip


def as_name(given: Any) -> Any:
    """A number, as shells leave of a quoted one, becomes its text."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return str(given) if isinstance(given, int) else f"{given:g}"
    return given


Name = Annotated[str, BeforeValidator(as_name)]


class Evaluate(Section):
    tests: dict[Name, tuple[Degradation, ...]] = Field(min_length=1)
    """damage that it is judged by, by names in which its metrics end; pairs that are learnt from as
    they are (degradations=[]) are judged as they are too"""
    images: int = Field(100, ge=1)
    """whole held-out images, at most"""
    seed: int = Field(0, ge=0, lt=2**63)
    """decides the damage"""
    planes: Literal["all", "luma"] = "all"
    """what is compared: all channels, or of colour images the luma of BT.601 in 16 to 235"""
    border: int | None = Field(None, ge=0)
    """pixels that are cut off all around before; left out: as many as an image is enlarged by"""
    more: tuple[More, ...] = ()
    """measures beside PSNR and SSIM: ms_ssim (161 pixels or more), psnr_b (gray or luma; JPEG)"""


TOLD: Mapping[str, frozenset[str]] = {
    "denoise": frozenset({"sigma"}), "deblock": frozenset({"quality"}),
    "inpaint": frozenset({"mask"}),
}  # fmt: skip
"""What the operation of a task can be told; those of others tell nothing."""


class Restorer(Restoring):
    helpers: ClassVar[Mapping[str, str]] = {"start": "start", "features": "loss.features"}
    teachers: ClassVar[frozenset[str]] = frozenset({"start", "features"})

    task: Literal[
        "denoise", "deblock", "deblur", "enhance", "colourise", "inpaint", "upscale", "restore"
    ]
    """the operation that its models do"""
    degradations: tuple[Degradation, ...]
    """what it learns to undo, in the order in which it happens"""
    tells: tuple[Told, ...] = ()
    """what its network is told of the damage; blind to all else"""
    pairs: bool = False
    """learn from pairs on disk, `input/` and `target/`; degradations come on top of them"""
    model: Model = PlainModel()
    start: str | None = None
    """a restorer of the same network (NAME, NAME@ALIAS, NAME@7), whose weights it begins with"""
    loss: Loss = Loss()
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
        if self.scale not in (known := scales_of(self.model)):
            raise ValueError(
                f"model.network={self.model.network}: enlarges by {' or '.join(map(str, known))},"
                f" and degradations shrink by {self.scale}"
            )
        if self.data.size % self.scale:
            raise ValueError(
                f"data.size={self.data.size}: cannot be shrunk by {self.scale}; use a multiple"
            )
        for key, every in (("degradations", self.degradations), *self.evaluation.tests.items()):
            if scale_of(every) != self.scale:
                raise ValueError(f"{key}: shrinks by {scale_of(every)}, others by {self.scale}")
            missing = set(self.tells) - {TELLS.get(each.kind) for each in every}
            if missing:
                raise ValueError(f"{key}: nothing in it tells {' or '.join(sorted(missing))}")
        colour = self.data.channels == 3 and self.evaluation.planes != "luma"
        if colour and "psnr_b" in self.evaluation.more:
            raise ValueError("evaluation.more=[psnr_b]: is of gray images, or of planes=luma")
        if self.task == "colourise" and self.data.channels == 1:
            raise ValueError("task=colourise: gray images have no colours; set data.channels=3")
        refuse_single(self.model, self.data.size, self.train.batch_size)
        can = TOLD.get(self.task, frozenset())
        if wrong := [each for each in self.tells if each not in can or self.tells.count(each) > 1]:
            may = f"may be told {min(can)}, once" if can else "can be told nothing"
            why = f"{wrong[0]}: task={self.task} {may}; leave the others out"
            raise ValueError(f"tells={[*self.tells]}: {why}")
        if self.task == "inpaint" and not self.tells:
            raise ValueError("tells=[]: inpaint is told where to; set tells=[mask]")
        return self

    @property
    def wants(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image", "target") if self.pairs else ("image",)

    @property
    def last_is_best(self) -> bool:
        return self.loss.adversarial > 0  # pleasing the eye costs PSNR, more the longer it learns

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
        cut = self.scale if self.scale > 1 else 0
        border = cut if ours.border is None else ours.border
        return Looked(ours.images, ours.seed, ours.planes, border, ours.more)

    def restorer(self) -> RestoringNetwork:
        network = network_of(self.model, self.data.channels, len(self.tells), self.scale)
        return Filled(network) if self.tells == ("mask",) else network

    def damage(self) -> Sequence[Degradation]:
        return self.degradations

    def tests(self) -> Mapping[str, Sequence[Degradation]]:
        return self.evaluation.tests if self.degradations else {"pairs": ()}

    def idle(self) -> Mapping[str, str]:
        why = "with degradations=[] pairs are judged as they come"
        return {} if self.degradations else {"evaluation.tests": why}

    def loss_of(self, restored: Tensor, clean: Tensor) -> Tensor:
        return self.loss.between(restored, clean)

    def method(self, device: torch.device) -> Restoration:
        return method_of(self, self.loss, device)

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        if name == "features":
            helper.need("classify")
        else:
            refuse_start(self, helper, f"start={self.start}")

    def helped(self, method: Method, teachers: Mapping[str, Mapping[str, nn.Module]]) -> None:
        help_method(method, teachers)


def scale_of(degradations: Sequence[Degradation]) -> int:
    """By how much they shrink an image, all together."""
    scale = 1
    for each in degradations:
        scale *= each.scale if isinstance(each, Shrink) else 1
    return scale


def deblocker() -> Restorer:
    """Removes what JPEG leaves, of any quality, saved twice and shifted too (as FBCNN's)."""
    return Restorer(
        recipe="deblocker",
        task="deblock",
        data=PATCHES,
        degradations=(JPEG(low=5, high=95, shifted=0.2),),
        model=PlainModel(width=64),
        evaluation=Evaluate(
            tests={f"q{q}": (JPEG(low=q, high=q, exact=True),) for q in (10, 20, 30, 40)}
        ),
        train=TRAIN,
    )


def deblurrer() -> Restorer:
    """NAFNet (Chen et al. 2022), which sharpens what was out of focus or moved, blindly."""
    return Restorer(
        recipe="deblurrer",
        task="deblur",
        data=PATCHES,
        degradations=(
            Blur(of=("gaussian", "motion"), sigma=(0.3, 3.0), length=(1, 15)),
            Noise(high=3, quantise=True),
        ),
        model=NAFNetModel(),
        evaluation=Evaluate(
            tests={
                "gaussian": (Blur(sigma=(1.6, 1.6)), Noise(low=1, high=1, quantise=True)),
                "motion": (
                    Blur(of=("motion",), length=(11, 11)),
                    Noise(low=1, high=1, quantise=True),
                ),
            }
        ),
        train=TRAIN,
    )


def enhancer() -> Restorer:
    """Gives light, contrast and natural colours to what has too little of them."""
    return Restorer(
        recipe="enhancer",
        task="enhance",
        data=PATCHES,
        degradations=(Light(), Noise(high=10, quantise=True)),
        model=NAFNetModel(),
        evaluation=Evaluate(tests={"light": (Light(), Noise(low=5, high=5, quantise=True))}),
        train=TRAIN,
    )


def colouriser() -> Restorer:
    """Gives colours to gray images: the likeliest ones, on the average."""
    return Restorer(
        recipe="colouriser",
        task="colourise",
        data=PATCHES,
        degradations=(Gray(),),
        model=DRUNetModel(),
        evaluation=Evaluate(tests={"gray": (Gray(),)}),
        train=TRAIN,
    )


def inpainter() -> Restorer:
    """Fills missing pixels, boxes and strokes, of which it is told where they are."""
    return Restorer(
        recipe="inpainter",
        task="inpaint",
        data=PATCHES,
        degradations=(Holes(low=0.05, high=0.8),),
        tells=("mask",),
        model=DRUNetModel(),
        evaluation=Evaluate(
            tests={
                "half": (Holes(of=("pixels",), low=0.5, high=0.5),),
                "boxes": (Holes(of=("boxes",), low=0.1, high=0.1),),
                "strokes": (Holes(of=("strokes",), low=0.1, high=0.1),),
            }
        ),
        train=TRAIN,
    )


def upscaler() -> Restorer:
    """Enlarges twice (thrice, four times: by its `shrink`), by plain convolutions 3x3."""
    shrink = Shrink(scale=2)
    return Restorer(
        recipe="upscaler",
        task="upscale",
        data=PATCHES,
        degradations=(shrink,),
        model=PlainModel(unshuffle=1),
        evaluation=Evaluate(tests={"shrunk": (shrink,)}, planes="luma"),
        train=TRAIN,
    )


def restorer() -> Restorer:
    """Blind to what has befallen an image: blur, noise and JPEG, in this order, or some of them."""
    noise, jpeg = Noise(low=10, high=10, quantise=True), JPEG(low=40, high=40, exact=True)
    return Restorer(
        recipe="restorer",
        task="restore",
        data=PATCHES,
        degradations=(
            Blur(of=("gaussian", "motion"), sigma=(0.3, 2.0), length=(1, 9), probability=0.5),
            Noise(high=30, quantise=True, probability=0.7),
            JPEG(low=30, high=95, probability=0.7),
        ),
        model=DRUNetModel(),
        evaluation=Evaluate(
            tests={
                "mixed": (Blur(sigma=(1.0, 1.0)), noise, jpeg),
                "noise": (noise,),
                "jpeg": (jpeg,),
            }
        ),
        train=TRAIN,
    )
