"""What is measured of an image in one number: how bright, wide, high, slanted, thick, colourful."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_VALUES_AT_ONCE = 2**22  # of images: bounds the memory of what is made of them in float64


def attributes(images: Tensor) -> dict[str, Tensor]:
    """Of uint8 [N, C, H, W]: float64 [N] each, by their names.

    Ink is how far a pixel's luma is from the mean of the image's border, 0 to 1.

    brightness: mean luma, 0 to 1
    thickness: of strokes, pixels: twice the ink by the length of its border (its total variation)
    slant: pixels that the ink leans to the right in each pixel up (from its second moments)
    width, height: standard deviations of the ink's places, pixels
    saturation: mean range of a pixel's channels, 0 to 1; of colour images only
    """
    few = max(1, _VALUES_AT_ONCE // images.shape[1:].numel())
    parts = [_measured(part) for part in images.split(few)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _measured(images: Tensor) -> dict[str, Tensor]:
    """As `attributes`."""
    levels = images.double() / 255
    if levels.shape[1] == 3:
        luma = (levels * levels.new_tensor(_LUMA)[:, None, None]).sum(dim=1)
    else:
        luma = levels[:, 0]
    ink = (luma - border(luma)[:, None, None]).abs()
    mass = ink.sum(dim=(1, 2)).clamp_min(1e-9)
    y, x = (torch.arange(side, dtype=torch.float64) for side in luma.shape[1:])
    across, down = ink.sum(dim=1), ink.sum(dim=2)
    middle_x, middle_y = (across @ x) / mass, (down @ y) / mass
    off_x, off_y = x - middle_x[:, None], y - middle_y[:, None]
    var_x = (across * off_x**2).sum(dim=1) / mass
    var_y = (down * off_y**2).sum(dim=1) / mass
    both = torch.einsum("nhw,nh,nw->n", ink, off_y, off_x) / mass
    right, below = (F.pad(ink, pad).diff(dim=dim) for pad, dim in (((1, 1), 2), ((0, 0, 1, 1), 1)))
    steps = (F.pad(right, (0, 0, 1, 0)).square() + F.pad(below, (1, 0)).square()).sqrt()
    found = {
        "brightness": luma.mean(dim=(1, 2)),
        "thickness": 2 * mass / steps.sum(dim=(1, 2)).clamp_min(1e-9),
        "slant": -both / var_y.clamp_min(1e-9),
        "width": var_x.sqrt(),
        "height": var_y.sqrt(),
    }
    if levels.shape[1] == 3:
        found["saturation"] = (levels.amax(dim=1) - levels.amin(dim=1)).mean(dim=(1, 2))
    return found


def border(luma: Tensor) -> Tensor:
    """float64 [N]: the mean of the outermost pixels of [N, H, W]."""
    edge = torch.ones(luma.shape[1:], dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    return luma[:, edge].mean(dim=1)
