"""Convolutions whose weights lie as oneDNN computes with them; all that touches its operators.

PyTorch lays the weights out anew at each pass, which for a single row takes longer than computing.
These are the operators that torch.compile freezes convolutions to; the bits are the same. `pack`
leaves a convolution as it is where there are none.
"""

from __future__ import annotations

import itertools
from typing import TypeGuard

import torch
from torch import Tensor, nn

from genimg.models.rows import FirstConvTranspose2d

Convolution = nn.Conv2d | nn.ConvTranspose2d

FEW_CHANNELS = 8  # below this oneDNN's transposed convolutions leave most of a vector empty


def pack(network: nn.Module) -> None:
    """Let every convolution of a network in evaluation mode be packed, in place.

    A ReLU right behind one in a Sequential becomes part of it.
    """
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) and can_be_packed(child):
                setattr(part, name, Phases(child) if doubles_to_few(child) else Packed(child))
        if isinstance(part, nn.Sequential):
            fuse(part)


def fuse(layers: nn.Sequential) -> None:
    """Let packed convolutions do the ReLU behind them, which is then none."""
    real = [i for i, layer in enumerate(layers) if not isinstance(layer, nn.Identity)]
    for i, after in itertools.pairwise(real):
        convolution = layers[i]
        if isinstance(convolution, Packed) and isinstance(layers[after], nn.ReLU):
            convolution.activation = "relu"
            layers[after] = nn.Identity()


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
        self.activation = "none"  # computed on the way out
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
        if images.requires_grad:  # of which oneDNN's operators know nothing
            made = layer(images)
            return made.relu() if self.activation == "relu" else made
        behind: tuple[str, list[float], None] = (self.activation, [], None)
        if isinstance(layer, nn.ConvTranspose2d):
            return operators._convolution_transpose_pointwise(
                images, self.weight, layer.bias, layer.padding, layer.output_padding,
                *self.shape, *behind,
            )  # fmt: skip
        return operators._convolution_pointwise(
            images, self.weight, layer.bias, layer.padding, *self.shape, *behind
        )


def doubles_to_few(layer: Convolution) -> TypeGuard[nn.ConvTranspose2d]:
    """Whether it is a transposed convolution that doubles the size, to few channels."""
    return (
        isinstance(layer, nn.ConvTranspose2d)
        and layer.out_channels < FEW_CHANNELS
        and (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
        and (layer.output_padding, layer.dilation, layer.groups) == ((0, 0), (1, 1), 1)
    )


class Phases(nn.Module):
    """A transposed convolution 4x4 of stride 2 as a plain one, which makes each pixel's four.

    As sub-pixel convolution (Shi and others 2016): an output pixel of even and of odd place comes
    of two by two input pixels, one further for the odd. Equal up to the order of sums.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.layer = layer
        taps = layer.weight.detach()[:, :, [3, 1, 2, 0]][..., [3, 1, 2, 0]]  # even's, odd's
        taps = taps.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # [in, out, phase, y, phase, x]
        weight = taps.permute(2, 4, 1, 0, 3, 5).flatten(0, 2)  # [phases x out, in, 2, 2]
        plain = nn.Conv2d(layer.in_channels, len(weight), 2, padding=1, bias=False)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.detach().repeat(4), requires_grad=False)
        self.plain = Packed(plain.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        channels = self.layer.out_channels
        made = self.plain(images).permute(0, 2, 3, 1).unflatten(3, (2, 2, channels))
        doubled = made.new_empty(count, height, 2, width, 2, channels)
        for y, x in itertools.product(range(2), range(2)):
            doubled[:, :, y, :, x] = made[:, y : y + height, x : x + width, y, x]
        return doubled.view(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
