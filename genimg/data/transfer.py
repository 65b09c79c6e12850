"""From the CPU to a device without waiting for it."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device: queued on its current stream where that is a GPU.

    Only copies from pinned memory are queued; those from pageable memory hold the caller up.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
