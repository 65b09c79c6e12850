"""Images composed of others, with their masks, boxes and captions; no model is needed.

    scene = read_scene(Path("scene.json"))
    composed = Composer(scene, Path("."))(fold(seed, torch.tensor([number])))

A new kind of layer is a class, and a line in genimg.composition.scene; of picture, in
genimg.composition.layer.
"""

from genimg.composition.composing import Composed, Composer, Thing
from genimg.composition.layer import PICTURES, Layer
from genimg.composition.pictures import Picture
from genimg.composition.scene import KINDS, Scene, read_scene

__all__ = [
    "KINDS", "PICTURES", "Composed", "Composer", "Layer", "Picture", "Scene", "Thing", "read_scene",
]  # fmt: skip
