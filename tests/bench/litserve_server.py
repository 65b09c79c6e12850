"""The server that one would write with LitServe instead: the same network, precision and encoder.

python litserve_server.py FOLDER PORT WORKERS API_SERVERS BATCH TIMEOUT PRECISION
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from fastapi import Response
from plain_drawing import Drawing

from genimg import images


class Api(litserve.LitAPI):
    """Seeds in, PNG out. Networks run as LitServe gives them: whole batches, in one pass."""

    def __init__(self, folder: Path, precision: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder
        self.precision = precision

    def setup(self, device: str) -> None:
        self.drawing = Drawing(self.folder, self.precision, device)

    def decode_request(self, request: dict[str, int]) -> int:
        return request["seed"]

    def batch(self, seeds: list[int]) -> torch.Tensor:
        return self.drawing.rows(seeds)

    def predict(self, rows: torch.Tensor | int) -> np.ndarray:
        if not isinstance(rows, torch.Tensor):  # where no batches are made
            rows = self.batch([rows])
        return self.drawing.draw(rows)

    def unbatch(self, made: np.ndarray) -> list[np.ndarray]:
        return list(made)

    def encode_response(self, image: np.ndarray) -> Response:
        pixels = image if image.ndim == 3 else image[0]
        return Response(images.encode(pixels, "png"), media_type="image/png")


def main() -> None:
    folder, port, workers, api_servers, batch, timeout, precision = sys.argv[1:]
    api = Api(
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
