"""What is where in a procedural scene, as numbers: a pure function of the scene's key.

Nothing here knows of pixels, so a scene is laid out alike at every size. As in shapes and
textures, arithmetic is elementwise and correctly rounded: a scene never depends on its batch.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from genimg import rng
from genimg.data.shapes import SHAPES
from genimg.data.textures import TEXTURES

SLOTS = 3  # the most objects that a scene holds
COLOURS = {
    "red": (226, 48, 48),
    "orange": (249, 133, 18),
    "yellow": (252, 211, 42),
    "green": (56, 158, 66),
    "cyan": (22, 184, 206),
    "blue": (36, 92, 222),
    "purple": (134, 48, 178),
    "pink": (240, 112, 172),
}
_DEEP = (  # each of them darkened, and turned a little towards blue or red, as pigments are
    (136, 14, 38), (184, 68, 12), (184, 116, 10), (14, 90, 64),
    (10, 102, 148), (22, 34, 122), (70, 16, 108), (184, 38, 108),
)  # fmt: skip
BACKDROPS = ("plain", "striped", "checkered", "dotted", "gradient", "wavy", "cloudy")
"""What each of TEXTURES is called where it is a background."""

_PALE = (
    ((250, 244, 228), (242, 224, 190)),  # cream
    ((253, 232, 228), (246, 206, 202)),  # blush
    ((224, 243, 230), (188, 224, 204)),  # mint
    ((224, 239, 250), (184, 214, 240)),  # sky
    ((238, 230, 249), (213, 198, 238)),  # lilac
    ((240, 239, 235), (214, 212, 207)),  # stone
)
_DARK = (
    ((24, 31, 56), (44, 57, 96)),  # navy
    ((17, 42, 38), (31, 68, 60)),  # forest
    ((42, 22, 50), (71, 41, 82)),  # plum
    ((36, 38, 44), (61, 64, 74)),  # charcoal
)

# By number of objects: the smallest and the largest radius of the first, half the frame being 1.
_MAIN_RADIUS = ((0.5, 0.76), (0.44, 0.58), (0.42, 0.5))
_OTHER_RADIUS = (0.24, 0.31)  # smaller in area than any first object, whatever the shapes
_CANDIDATES = 12  # places tried for each further object
_TILT = 24  # degrees that shapes lean at most to either side
_SIMPLE_RADIUS = (0.68, 0.76)  # of a simple scene's only object,
_SIMPLE_TILT = 8  # which leans less,
_SIMPLE_SHIFT = 0.2  # and leaves the middle by this part of the way that it could
# Period of each texture for a surface of radius 1, and for a vanishing one.
_PERIODS = (
    (1.0, 1.0), (0.5, 0.13), (0.72, 0.18), (0.4, 0.12), (2.0, 0.0), (0.52, 0.14), (1.4, 0.1),
)  # fmt: skip
_PLAIN_OR = (0, 0, *range(len(TEXTURES)))  # plain is three times as likely as any other texture
_INSTEAD = ("plain", "wavy", "dotted", "checkered", "shaded", "striped", "marbled")  # of TEXTURES


@dataclass(frozen=True)
class Layout:
    """What is where in N scenes. The last surface of each is the background.

    Affine maps take a point of the frame, [-1, 1] to the right and downwards, to coordinates
    of a shape or a texture.
    """

    shapes: Tensor  # int64 [N, SLOTS], into SHAPES; -1 where the slot is empty
    colours: Tensor  # int64 [N, SLOTS], into COLOURS
    textures: Tensor  # int64 [N, SLOTS + 1], into TEXTURES
    shape_maps: Tensor  # float32 [N, SLOTS, 2, 3]
    texture_maps: Tensor  # float32 [N, SLOTS + 1, 2, 3]
    radii: Tensor  # float32 [N, SLOTS], half the frame being 1
    periods: Tensor  # float32 [N, SLOTS + 1], likewise
    first: Tensor  # float32 [N, SLOTS + 1, 3], RGB in [0, 255]
    second: Tensor  # float32 [N, SLOTS + 1, 3]
    keys: Tensor  # int64 [N], of the scenes


def compose(keys: Tensor, simple: bool = False) -> Layout:
    """Lay out one scene for each key (int64 [N]).

    simple: one large plain object near the middle, nearly upright, on a plain pale background.
    The full scenes hold such ones too; a key's main object has the same shape and colour in both.
    """
    count = rng.integers(rng.fold(keys, 0), SLOTS)  # one less than the number of objects
    shapes = rng.integers(rng.fold(keys, 1), len(SHAPES), (SLOTS,))
    kinds = rng.integers(rng.fold(keys, 2), len(_PLAIN_OR), (SLOTS + 1,))
    if simple:
        count, kinds = torch.zeros_like(count), torch.zeros_like(kinds)
    textures = table(_PLAIN_OR, keys.device)[kinds].long()

    radii, centres, fits = _places(rng.fold(keys, 3), count, simple)
    shapes = torch.where(fits, shapes, -1)
    start = rng.integers(rng.fold(keys, 8, 0), len(COLOURS), (1,))
    stride = 2 + rng.integers(rng.fold(keys, 8, 1), 2, (1,))  # 2 or 3 keep three colours apart
    colours = (start + stride * torch.arange(SLOTS, device=keys.device)) % len(COLOURS)
    tilt, backdrops = (_SIMPLE_TILT, _PALE) if simple else (_TILT, _PALE + _DARK)
    return surfaced(keys, shapes, colours, textures, radii, centres, tilt, len(backdrops))


def surfaced(
    keys: Tensor,
    shapes: Tensor,
    colours: Tensor,
    textures: Tensor,
    radii: Tensor,
    centres: Tensor,
    tilt: int = _TILT,
    backdrops: int = len(_PALE + _DARK),
) -> Layout:
    """Layouts in which is decided what is where; keys say how it leans, and how surfaces lie.

    tilt: degrees to either side, at most; backdrops: how many of them there are to choose from
    """
    tilts = rng.integers(rng.fold(keys, 4), 2 * tilt + 1, (SLOTS,)) - tilt
    shape_maps = _maps(tilts, centres, radii, 0)

    # A texture turns, scales and shifts on its surface; the background is a surface of radius 1.
    centres = torch.nn.functional.pad(centres, (0, 0, 0, 1))
    reach = torch.nn.functional.pad(radii, (0, 1), value=1.0)
    slope, least = table(_PERIODS, keys.device)[textures].unbind(-1)
    stretch = 0.85 + 0.35 * rng.uniform(rng.fold(keys, 5), (SLOTS + 1,))
    periods = (slope * reach + least) * stretch
    shifts = rng.uniform(rng.fold(keys, 6), (SLOTS + 1, 2))
    shifts = shifts * (textures != list(TEXTURES).index("shaded"))[..., None]
    turns = rng.integers(rng.fold(keys, 7), 360, (SLOTS + 1,))
    texture_maps = _maps(turns, centres, periods, shifts)

    behind = rng.integers(rng.fold(keys, 8, 2), backdrops)
    first, second = _colours(colours, behind)
    return Layout(
        shapes, colours, textures, shape_maps, texture_maps, radii, periods, first, second,
        keys,
    )  # fmt: skip


def retextured(layout: Layout) -> Layout:
    """The same scenes in other textures: what is striped is wavy, what is checkered is dotted, and
    the other way round. All else stays."""
    others = tuple(list(TEXTURES).index(name) for name in _INSTEAD)
    textures = table(others, layout.textures.device)[layout.textures].long()
    return replace(layout, textures=textures)


def _places(keys: Tensor, count: Tensor, simple: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Radii [N, SLOTS], centres [N, SLOTS, 2] and which slots are filled (bool [N, SLOTS]).

    Each object goes to the roomiest of a few random places (Mitchell 1991), though no further
    from the others than a random gap; one still overlapped by a quarter of its width is left out.
    """
    main = (_SIMPLE_RADIUS,) if simple else _MAIN_RADIUS
    low, high = table(main, keys.device)[count].unbind(-1)
    chance = rng.uniform(rng.fold(keys, 0), (SLOTS,))
    radii = _OTHER_RADIUS[0] + (_OTHER_RADIUS[1] - _OTHER_RADIUS[0]) * chance
    radii[:, 0] = low + (high - low) * chance[:, 0]

    spots = 2 * rng.uniform(rng.fold(keys, 1), (SLOTS, _CANDIDATES, 2)) - 1
    reach = (1 - radii) * _SIMPLE_SHIFT if simple else 1 - radii
    spots = spots * reach[..., None, None]
    gaps = 0.25 * rng.uniform(rng.fold(keys, 2), (SLOTS, _CANDIDATES)) - 0.1
    centres, fits = [spots[:, 0, 0]], [torch.ones_like(count, dtype=torch.bool)]
    for slot in range(1, SLOTS):
        room = gaps[:, slot]
        for other in range(slot):
            offset = spots[:, slot] - centres[other][:, None]
            apart = (offset[..., 0] * offset[..., 0] + offset[..., 1] * offset[..., 1]).sqrt()
            clear = apart - (radii[:, slot] + radii[:, other])[:, None]
            clear = torch.where(fits[other][:, None], clear, 1.0)
            room = torch.minimum(room, clear)
        best = room.argmax(1, keepdim=True)
        centres.append(spots[:, slot].gather(1, best[..., None].expand(-1, -1, 2))[:, 0])
        fits.append((room.gather(1, best)[:, 0] > -0.5 * radii[:, slot]) & (count >= slot))
    return radii, torch.stack(centres, 1), torch.stack(fits, 1)


def _colours(names: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
    """First and second colours float32 [N, SLOTS + 1, 3] of objects int64 [N, SLOTS], by their
    names, before backdrops int64 [N].

    The second colour is the first, lightened or darkened; darkened only on pale backgrounds, so
    that outlines stay clear.
    """
    device = names.device
    main = table(tuple(COLOURS.values()), device)[names]
    lighter = main + (table((255, 250, 240), device) - main) * 0.72
    darker = table(_DEEP, device)[names]
    second = torch.where((behind < len(_PALE))[:, None, None], darker, lighter)
    backdrop = table(_PALE + _DARK, device)[behind]
    return torch.cat([main, backdrop[:, :1]], 1), torch.cat([second, backdrop[:, 1:]], 1)


def _maps(turns: Tensor, centres: Tensor, scales: Tensor, shifts: Tensor | int) -> Tensor:
    """float32 [N, K, 2, 3]: p -> rotation by -turns (degrees) of (p - centre) / scale + shift."""
    cos, sin = circle(turns).unbind(-1)
    cos, sin = cos / scales, sin / scales
    rotation = torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))
    x, y = centres[..., :1], centres[..., 1:]
    offset = shifts - (rotation[..., 0] * x + rotation[..., 1] * y)
    return torch.cat([rotation, offset[..., None]], -1)


_CIRCLE = tuple((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(360))


def circle(degrees: Tensor) -> Tensor:
    """float32 [..., 2]: cosines and sines of int64 degrees [...]."""
    return table(_CIRCLE, degrees.device)[degrees % 360]


@cache
def table(values: tuple[object, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
