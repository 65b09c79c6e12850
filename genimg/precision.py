"""In which precision networks multiply: bfloat16 where the hardware does so natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
Choice = Literal["auto", "float32", "bfloat16"]
"""what may be asked for; auto takes bfloat16 where the hardware multiplies it natively"""


def resolved(choice: Choice, device: torch.device) -> Precision:
    """The precision that a choice means on a device."""
    import torch

    if choice != "auto":
        return choice
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
