"""The description of a scene: a background, and layers from the back to the front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from genimg.composition.flat import Paste, Quad
from genimg.composition.gathered import refuse_pixels
from genimg.composition.layer import AnyPicture, Layer
from genimg.composition.mesh import Mesh
from genimg.composition.pictures import Picture, Plain
from genimg.composition.solids import Cylinder, Sphere
from genimg.errors import InputError, listed
from genimg.section import Section, of_its_kind

KINDS: dict[str, type[Layer]] = {
    each.model_fields["kind"].default: each for each in (Paste, Quad, Mesh, Cylinder, Sphere)
}
AnyLayer = Annotated[
    Annotated[Paste | Quad | Mesh | Cylinder | Sphere, Field(discriminator="kind")],
    BeforeValidator(of_its_kind(KINDS)),
]
THINGS = "{things}"
MOST_CLASSES = 254  # that a mask can tell apart, beside the background and what is unknown

Side = Annotated[int, Field(ge=1, le=16_384)]


class Scene(Section):
    """A canvas and what lies on it. Paths are relative to the folder of the scene's file."""

    background: AnyPicture = Plain(colour="#ffffff")
    """the picture that all else lies on: a file, one of a folder, a colour as #c8c8c8, or keys"""
    size: tuple[Side, Side] | None = None
    """[width, height] of the canvas; the background is brought to it, and cut about its middle;
    left out: the background's own"""
    layers: tuple[AnyLayer, ...] = Field((), max_length=1000)
    """from the back to the front"""
    caption: str = Field(THINGS, max_length=500)
    """of an image; {things} stands for what is seen, as in: a cup and an apple"""

    @model_validator(mode="after")
    def can_be_drawn(self) -> Self:
        if self.size is None and isinstance(self.background, Plain):
            raise ValueError("size is missing: a colour has no sides; give [width, height]")
        if self.size is not None:
            refuse_pixels(*self.size)
        if len(self.classes()) > MOST_CLASSES:
            raise ValueError(f"layers: more than {MOST_CLASSES} labels, which no mask can hold")
        return self

    def pictures(self) -> list[Picture]:
        """All that it is made of."""
        return [self.background, *(each for layer in self.layers for each in layer.pictures())]

    def classes(self) -> tuple[str, ...]:
        """Labels, in the order in which layers have them; a mask counts from 1."""
        return tuple(dict.fromkeys(layer.label for layer in self.layers if layer.label))

    def told(self, things: list[str]) -> str:
        """A caption of things that are seen."""
        return self.caption.replace(THINGS, listed(things or ["nothing"]))

    @property
    def captioned(self) -> bool:
        """Whether there is anything that captions could tell."""
        return self.caption != THINGS or bool(self.classes())


def read_scene(file: Path) -> Scene:
    """The scene in a JSON file; InputError naming the file, and what is wrong in it."""
    try:
        tree = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f'{file}: give an object, as {{"background": "room.jpg", "layers": []}}')
    try:
        return Scene.validated(tree)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
