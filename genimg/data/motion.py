"""How procedural scenes move: objects drift, turn, and bounce off the borders of the frame.

The first object goes in front of the others, as it does in the image; the background stays.
"""

from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import rng
from genimg.data.layout import SLOTS, Layout, circle

SPEED = (0.03, 0.1)  # of objects in a frame's time, half the frame being 1
TURN = 6  # degrees that they turn in that time, at most, to either side

_MOTION = int.from_bytes(b"motion")


def moving(layout: Layout, frames: int) -> Layout:
    """Layouts of N * frames scenes: those of a scene one after the other, itself the first."""
    keys = rng.fold(layout.keys, _MOTION)
    speeds = SPEED[0] + (SPEED[1] - SPEED[0]) * rng.uniform(rng.fold(keys, 0), (SLOTS,))
    velocities = circle(rng.integers(rng.fold(keys, 1), 360, (SLOTS,))) * speeds[..., None]
    turns = rng.integers(rng.fold(keys, 2), 2 * TURN + 1, (SLOTS,)) - TURN

    times = torch.arange(frames, device=keys.device)[:, None]
    centres = centres_of(layout)[:, None]
    room = 1 - layout.radii[:, None, :, None]
    places = bounced(centres + velocities[:, None] * times[..., None], room)
    drift = torch.where(times[..., None] > 0, places - centres, 0.0)  # to the bit as it was
    each = Layout(
        *(getattr(layout, field.name).repeat_interleave(frames, 0) for field in fields(layout))
    )
    centres = centres.expand_as(drift)
    return moved(
        each, centres.flatten(0, 1), drift.flatten(0, 1), (turns[:, None] * times).flatten(0, 1)
    )


def centres_of(layout: Layout) -> Tensor:
    """float32 [N, SLOTS, 2]: where objects are; their maps take these points to the origin."""
    a, b, c, d = layout.shape_maps[..., :2].flatten(-2).unbind(-1)
    x, y = layout.shape_maps[..., 2].unbind(-1)
    square = layout.radii * layout.radii  # of a rotation divided by the radius, whose inverse is
    return -torch.stack([a * x + c * y, b * x + d * y], -1) * square[..., None]


def bounced(places: Tensor, room: Tensor) -> Tensor:
    """Places [...] of what is mirrored by walls at -room and room [...], as often as it meets them.

    A way that is unfolded goes on straight; folded, it has come back after four times the room.
    """
    way = torch.remainder(places + room, 4 * room)
    return torch.minimum(way, 4 * room - way) - room


def moved(layout: Layout, centres: Tensor, drift: Tensor, turns: Tensor) -> Layout:
    """A layout whose objects were turned, by int64 degrees [N, SLOTS], about centres [N, SLOTS, 2],
    and then drifted by [N, SLOTS, 2]."""
    behind = (0, 0, 0, 1)  # the background, which stays
    return replace(
        layout,
        shape_maps=before(layout.shape_maps, centres, drift, turns),
        texture_maps=before(
            layout.texture_maps, F.pad(centres, behind), F.pad(drift, behind), F.pad(turns, (0, 1))
        ),
    )


def before(maps: Tensor, centres: Tensor, drift: Tensor, turns: Tensor) -> Tensor:
    """Maps float32 [N, K, 2, 3] of what has moved: each takes a point to where the given one takes
    the point that it has come from."""
    cos, sin = circle(turns)[..., None].unbind(-2)
    right, down = maps[..., 0], maps[..., 1]
    turned = torch.stack([right * cos - down * sin, right * sin + down * cos], -1)
    change = (maps[..., :2] - turned) * centres[..., None, :] - turned * drift[..., None, :]
    offset = maps[..., 2] + change[..., 0] + change[..., 1]
    return torch.cat([turned, offset[..., None]], -1)
