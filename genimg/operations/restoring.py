"""Operations that take an image of any size and give it back better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.tiled import Tiled


class AnySize(Operation):
    """On images of any size, of which large ones are computed in tiles."""

    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE}

    tile: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """side of the tiles of a large image, pixels, or more where a model needs it; 0: all at once"""

    @field_validator("tile", mode="before")
    @classmethod
    def auto_or_pixels(cls, tile: object) -> object:
        number = isinstance(tile, int) or (isinstance(tile, str) and tile.isdecimal())
        if tile == "auto" or (number and int(str(tile)) >= 0):
            return tile
        raise ValueError("give 'auto', 0 (off) or a number of pixels")

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        """[1, 1, C]: a pixel of the depth and the channels that the result will have."""
        return inputs["image"][:1, :1]


class Tiling(AnySize):
    """Restore an image as the model was made to: of mixed damage, or by the one thing it can do.

    What all operations have in common that give an image back better.
    """

    name: ClassVar[str] = "restore"

    strength: float = Field(1.0, ge=0, le=1)
    """0 gives the image back, 1 the restored one"""
    ensemble: bool = False
    """mean of what comes of the image in its eight symmetries: better, for eight times the work"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.tiled import Tiled

        return Tiled(ability, inputs["image"], self.tile, self.strength, self.ensemble)


class Denoise(Tiling):
    """Remove noise from an image of any size, mode and depth; alpha passes through."""

    name: ClassVar[str] = "denoise"

    conditions: ClassVar[frozenset[str]] = frozenset({"sigma"})

    sigma: float | None = Field(None, ge=0, le=255)
    """noise level on the scale of 0 to 255; without it, estimated from the image"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.noise_level import sigma_of

        plan = super().plan(ability, inputs)
        if "sigma" not in ability.conditions:  # it is blind to the level
            return plan
        return plan.told(sigma=sigma_of(inputs["image"]) if self.sigma is None else self.sigma)


class Deblock(Tiling):
    """Remove the blocks and rings that JPEG leaves; alpha passes through."""

    name: ClassVar[str] = "deblock"

    conditions: ClassVar[frozenset[str]] = frozenset({"quality"})

    quality: int | None = Field(None, ge=1, le=100)
    """JPEG quality that the image was saved in, for models that must be told"""

    def suits(self, ability: Ability) -> None:
        from genimg.errors import InputError

        if "quality" in ability.conditions and self.quality is None:
            raise InputError("quality is missing; this model must be told the JPEG quality")

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        plan = super().plan(ability, inputs)
        return plan if self.quality is None else plan.told(quality=self.quality)


class Deblur(Tiling):
    """Sharpen an image that is out of focus, or was moved; alpha passes through."""

    name: ClassVar[str] = "deblur"


class Enhance(Tiling):
    """Give an image light, contrast and natural colours; alpha passes through."""

    name: ClassVar[str] = "enhance"


class Colourise(Tiling):
    """Give a gray image colours; alpha passes through."""

    name: ClassVar[str] = "colourise"

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.pixels import converted, in_colour

        gray = converted(inputs["image"], 1)  # what colours it has are no hint, and not learnt from
        return super().plan(ability, {**inputs, "image": in_colour(gray)})

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        from genimg.pixels import in_colour

        return in_colour(super().pixel(ability, inputs))


class Upscale(Tiling):
    """Enlarge an image, with detail that plain enlargement has not. What JPEG left is enlarged too:
    run `deblock` on such an image first."""

    name: ClassVar[str] = "upscale"

    scale: int | None = Field(None, ge=2, le=4)
    """how much larger; without it, as the model does"""

    def suits(self, ability: Ability) -> None:
        from genimg.errors import InputError

        if self.scale not in (None, ability.scale):
            raise InputError(
                f"scale={self.scale}: this model enlarges by {ability.scale}; leave it out, or name"
                " another model"
            )


class Inpaint(Tiling):
    """Fill what a mask marks, or where an image is transparent; all else comes back as it was.
    Holes wider than some thirty pixels come out smooth."""

    name: ClassVar[str] = "inpaint"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE, "mask": Kind.MASK}
    optional: ClassVar[frozenset[str]] = frozenset({"mask"})
    beside: ClassVar[Mapping[str, str]] = {
        "mask": "white, or transparent, where an image is to be filled; left out: where the image"
        " is transparent"
    }

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.tiled import Tiled

        image, holes = self.marked(inputs)
        return Tiled(ability, image, self.tile, self.strength, self.ensemble, holes)

    def check(self, inputs: Mapping[str, Any]) -> None:
        self.marked(inputs)

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        pixel = super().pixel(ability, inputs)
        filled = inputs.get("mask") is None and pixel.shape[2] in (2, 4)
        return pixel[..., :-1] if filled else pixel

    @staticmethod
    def marked(inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The image and, float32 [H, W] of 0 to 1, what of it is to be filled."""
        from genimg.errors import InputError
        from genimg.pixels import marked, transparent

        image, mask = inputs["image"], inputs.get("mask")
        if mask is not None:
            holes = marked(mask, image)
        elif image.shape[2] in (2, 4):
            holes, image = transparent(image), image[..., :-1]
        else:
            raise InputError("mask is missing; give one, or an image that is transparent in places")
        if holes.min() > 0:
            raise InputError("mask: marks all of the image, of which nothing is left to go by")
        return image, holes
