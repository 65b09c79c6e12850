"""Convolutions whose weights lie as oneDNN computes with them; all that touches its operators.

PyTorch lays the weights out anew at each pass, which for a single row takes longer than computing.
These are the operators that torch.compile freezes convolutions to; the bits are the same. `pack`
leaves a convolution as it is where there are none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genimg.models.rows import FirstConvTranspose2d

Convolution = nn.Conv2d | nn.ConvTranspose2d


def pack(network: nn.Module) -> None:
    """Let every convolution of a network in evaluation mode be packed, in place."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) and can_be_packed(child):
                setattr(part, name, Packed(child))


def can_be_packed(layer: Convolution) -> bool:
    weight = layer.weight
    if isinstance(layer, FirstConvTranspose2d):  # is none at inference
        return False
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    needed = "_convolution_transpose_pointwise" if layer.transposed else "_convolution_pointwise"
    if not hasattr(torch.ops.mkldnn, needed) or layer.padding_mode != "zeros":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


class Packed(nn.Module):
    """A convolution in evaluation mode; its own parameters stay, to be looked at and saved."""

    def __init__(self, layer: Convolution) -> None:
        super().__init__()
        self.layer = layer
        self.shape = (layer.stride, layer.dilation, layer.groups)
        weight = layer.weight.detach()
        operators = torch.ops.mkldnn
        if isinstance(layer, nn.ConvTranspose2d):
            self.weight = operators._reorder_convolution_transpose_weight(
                weight, layer.padding, layer.output_padding, *self.shape, None
            )
        else:
            self.weight = operators._reorder_convolution_weight(
                weight, layer.padding, *self.shape, None
            )

    def forward(self, images: Tensor) -> Tensor:
        layer, operators = self.layer, torch.ops.mkldnn
        images = images.to(layer.weight.dtype)
        nothing: tuple[str, list[float], None] = ("none", [], None)  # is computed behind it
        if isinstance(layer, nn.ConvTranspose2d):
            return operators._convolution_transpose_pointwise(
                images, self.weight, layer.bias, layer.padding, layer.output_padding,
                *self.shape, *nothing,
            )  # fmt: skip
        return operators._convolution_pointwise(
            images, self.weight, layer.bias, layer.padding, *self.shape, *nothing
        )
