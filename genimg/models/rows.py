"""Layers that give a row the same bits at inference, in whatever batch and place it rides.

Numerical libraries choose their kernels by the size of a batch, and kernels differ in the order in
which they sum. In training these layers are PyTorch's own; so are their parameters' names.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Rows of one matrix product. MKL takes other kernels for a few rows, and for those left over from
# its blocks of 4, 6, 8 or 12: with MKL_ENABLE_INSTRUCTIONS=AVX2 (blocks of 6) the last two of 8 or
# of 32 rows have other bits than the same rows elsewhere. 24 is a multiple of all.
ROWS = 24


def in_blocks(product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """product(rows) for rows [N, ...] in blocks of ROWS, the last of which is filled up."""
    count = len(rows)
    missing = -count % ROWS
    if missing:
        rows = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])
    blocks = [product(block) for block in rows.split(ROWS)]
    made = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    return made[:count]


class Linear(nn.Linear):
    """A dense layer; at inference in float32, whatever the precision of the others.

    It costs next to nothing beside convolutions, and what it gives are latents, features and
    logits, which are read as numbers.
    """

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            return super().forward(rows)
        with torch.autocast(rows.device.type, enabled=False):
            return in_blocks(super().forward, rows.float())


class FirstConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of a single pixel [N, C, 1, 1], unpadded: a dense layer.

    At inference it is computed as one, in float32 as those are.
    """

    def forward(self, pixels: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.training:
            return super().forward(pixels, output_size)
        channels_last = self.weight.permute(0, 2, 3, 1)  # [in, height, width, out]
        matrix = channels_last.flatten(1)  # a view, where the weights lie so
        with torch.autocast(pixels.device.type, enabled=False):
            made = in_blocks(lambda rows: rows @ matrix, pixels.flatten(1).float())
        made = made.unflatten(1, channels_last.shape[1:])
        made = made if self.bias is None else made + self.bias
        return made.permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """A convolution that oneDNN computes in float32 for a single row too.

    PyTorch takes a kernel of its own for one row of few numbers, which is no faster.
    """

    def forward(self, images: Tensor) -> Tensor:
        alone = images.device.type == "cpu" and images.dtype == torch.float32
        if (
            self.training
            or not alone
            or torch.is_autocast_enabled("cpu")
            or not torch.backends.mkldnn.is_available()
        ):
            return super().forward(images)
        return torch.mkldnn_convolution(
            images,
            self.weight,
            self.bias,
            self.padding,  # type: ignore[arg-type]  # no words, which no model uses
            self.stride,
            self.dilation,
            self.groups,
        )
