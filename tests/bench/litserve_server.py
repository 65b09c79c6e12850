"""The server that one would write with LitServe instead: the same network, precision and encoder.

The network is as its recipe makes it, channels last, in bfloat16 with weights that are cast once.
What engines do beyond that (folded normalisation, packed weights) counts as ours.

python litserve_server.py FOLDER PORT WORKERS API_SERVERS BATCH TIMEOUT PRECISION
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from fastapi import Response
from torch import nn

from genimg import checkpoint, images, recipes
from genimg.inference import latents
from genimg.models.rows import FirstConvTranspose2d
from genimg.plans import to_arrays
from genimg.training.method import load_states


class Drawing(litserve.LitAPI):
    """Seeds in, PNG out. Networks run as LitServe gives them: whole batches, in one pass."""

    def __init__(self, folder: Path, precision: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        self.precision = precision

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        networks = recipes.from_json((self.folder / checkpoint.RECIPE).read_text()).networks()
        load_states(networks, checkpoint.read_tensors(self.folder, checkpoint.WEIGHTS))
        self.generator = networks["generator"].to(device, memory_format=torch.channels_last).eval()
        self.lower = self.precision == "bfloat16"
        convolutions = [
            part
            for part in self.generator.modules()
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
            and not isinstance(part, FirstConvTranspose2d)  # which computes in float32
        ]
        for part in convolutions if self.lower else ():
            part.to(torch.bfloat16)

    def decode_request(self, request: dict[str, int]) -> int:
        return request["seed"]

    def batch(self, seeds: list[int]) -> torch.Tensor:
        return latents(torch.tensor(seeds), self.generator.latent)

    @torch.inference_mode()
    def predict(self, rows: torch.Tensor | int) -> np.ndarray:
        if not isinstance(rows, torch.Tensor):  # where no batches are made
            rows = self.batch([rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.lower):
            return to_arrays(self.generator(rows))

    def unbatch(self, made: np.ndarray) -> list[np.ndarray]:
        return list(made)

    def encode_response(self, image: np.ndarray) -> Response:
        pixels = image if image.ndim == 3 else image[0]
        return Response(images.encode(pixels, "png"), media_type="image/png")


def main() -> None:
    folder, port, workers, api_servers, batch, timeout, precision = sys.argv[1:]
    api = Drawing(
        Path(folder),
        precision,
        max_batch_size=int(batch),
        batch_timeout=float(timeout),
        api_path="/v1/images/sample",
    )
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(workers), fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        num_api_servers=int(api_servers),
        generate_client_file=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
