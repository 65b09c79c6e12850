"""In which precision networks multiply: bfloat16 where the hardware does so natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

from genimg.errors import InputError, nearest

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
Choice = Literal["auto", "float32", "bfloat16"]
"""what may be asked for; auto takes bfloat16 where the hardware multiplies it natively"""
CHOICES: tuple[str, ...] = get_args(Choice)


def resolved(choice: str, device: torch.device) -> Precision:
    """The precision that a choice means on a device. Raises InputError for any other word."""
    import torch

    if choice not in CHOICES:
        raise InputError(f"precision={choice!r}; {nearest(choice, CHOICES)}")
    if choice != "auto":
        return cast("Precision", choice)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
