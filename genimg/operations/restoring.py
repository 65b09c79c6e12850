"""Operations that take an image of any size and give it back better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.plans import Tiled


class AnySize(Operation):
    """On images of any size, of which large ones are computed in tiles."""

    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE}

    tile: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """side of the tiles in which a large image is computed, pixels; 0: all at once"""

    @field_validator("tile", mode="before")
    @classmethod
    def auto_or_pixels(cls, tile: object) -> object:
        number = isinstance(tile, int) or (isinstance(tile, str) and tile.isdecimal())
        if tile == "auto" or (number and int(str(tile)) >= 0):
            return tile
        raise ValueError("give 'auto', 0 (off) or a number of pixels")


class Tiling(AnySize):
    """Restore an image as the model was made to: by the one such operation that it can do.

    What those operations have in common.
    """

    name: ClassVar[str] = "restore"

    strength: float = Field(1.0, ge=0, le=1)
    """0 gives the image back, 1 the restored one"""


class Denoise(Tiling):
    """Remove noise from an image of any size, mode and depth; alpha passes through."""

    name: ClassVar[str] = "denoise"

    conditions: ClassVar[frozenset[str]] = frozenset({"sigma"})

    sigma: float | None = Field(None, ge=0, le=255)
    """noise level on the scale of 0 to 255; without it, estimated from the image"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.noise_level import sigma_of
        from genimg.plans import Tiled

        image = inputs["image"]
        plan = Tiled(ability, image, self.tile, self.strength)
        if "sigma" not in ability.conditions:  # it is blind to the level
            return plan
        return plan.told(sigma=sigma_of(image) if self.sigma is None else self.sigma)
