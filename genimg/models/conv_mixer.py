"""ConvMixer: all frames that follow, at once, by convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.predicting import Predictor
from genimg.models.rows import Conv2d
from genimg.models.velocity import norm


class Block(nn.Module):
    """Each channel by itself, then all channels of a pixel (section 2, Trockman & Kolter 2022)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        across = Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.across = nn.Sequential(across, nn.GELU(), norm(width))
        self.through = nn.Sequential(Conv2d(width, width, 1), nn.GELU(), norm(width))

    def forward(self, features: Tensor) -> Tensor:
        return self.through(features + self.across(features))


class ConvMixer(Predictor):
    """As SimVP (Gao et al. 2022): an encoder of each frame, a translator between, and a decoder.

    Pixels are first folded into channels, `patch` x `patch` of them. The encoder makes `width`
    features of each frame; the translator is given those of all frames as its channels, mixes them
    in `blocks` blocks of four times as many, and makes the features of all frames that follow.

    H and W are multiples of `patch`.
    """

    def __init__(
        self,
        given: int,
        predicted: int,
        channels: int,
        width: int,
        blocks: int,
        kernel: int,
        patch: int,
    ) -> None:
        super().__init__(given, predicted)
        self.patch = patch
        pixels, mixed = channels * patch**2, 4 * width
        self.encoder = nn.Sequential(
            Conv2d(pixels, width, 3, padding=1, bias=False),
            norm(width),
            nn.GELU(),
            Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.translator = nn.Sequential(
            Conv2d(given * width, mixed, 1),
            nn.GELU(),
            norm(mixed),
            *(Block(mixed, kernel) for _ in range(blocks)),
            Conv2d(mixed, predicted * width, 1),
        )
        self.decoder = nn.Sequential(
            nn.GELU(),
            Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
            nn.GELU(),
            Conv2d(width, pixels, 3, padding=1),
        )

    def forward(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        patches = F.pixel_unshuffle(frames.flatten(0, 1), self.patch)
        features = self.encoder(patches.contiguous(memory_format=torch.channels_last))
        together = features.unflatten(0, (-1, self.given)).flatten(1, 2)
        following = self.translator(together.contiguous(memory_format=torch.channels_last))
        each = following.unflatten(1, (self.predicted, -1)).flatten(0, 1)
        made = self.decoder(each.contiguous(memory_format=torch.channels_last))
        return F.pixel_shuffle(made, self.patch).unflatten(0, (-1, self.predicted))
