"""The network that other servers serve: as its recipe makes it, in the precision that is asked for.

Channels last, in bfloat16 with weights that are cast once. What engines do beyond that (folded
normalisation, packed weights) counts as ours.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from genimg import checkpoint, recipes
from genimg.inference import latents
from genimg.models.rows import FirstConvTranspose2d
from genimg.plans import to_arrays
from genimg.training.method import load_states


class Drawing:
    """Images of a generator's checkpoint, on one thread."""

    def __init__(self, folder: Path, precision: str, device: str = "cpu") -> None:
        torch.set_num_threads(1)
        networks = recipes.from_json((folder / checkpoint.RECIPE).read_text()).networks()
        load_states(networks, checkpoint.read_tensors(folder, checkpoint.WEIGHTS))
        self.generator = networks["generator"].to(device, memory_format=torch.channels_last).eval()
        self.lower = precision == "bfloat16"
        convolutions = [
            part
            for part in self.generator.modules()
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
            and not isinstance(part, FirstConvTranspose2d)  # which computes in float32
        ]
        for part in convolutions if self.lower else ():
            part.to(torch.bfloat16)

    def rows(self, seeds: list[int]) -> torch.Tensor:
        """Latents float32 [N, D]."""
        return latents(torch.tensor(seeds), self.generator.latent)

    @torch.inference_mode()
    def draw(self, rows: torch.Tensor) -> np.ndarray:
        """uint8 [N, H, W, C], in one pass."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.lower):
            return to_arrays(self.generator(rows))
