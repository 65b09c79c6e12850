"""The server that one would write with BentoML instead: the same network, precision and encoder.

BENCH_FOLDER, BENCH_PRECISION, BENCH_WORKERS, BENCH_BATCH and BENCH_LATENCY_MS say which; started by
`bentoml serve bentoml_server:Sampler`. Images are base64 in JSON: BentoML makes batches of nothing
else that has bytes.
"""

import base64
import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from plain_drawing import Drawing
from pydantic import BeforeValidator

from genimg import images


def as_list(seed: Any) -> Any:
    """Clients give one seed; BentoML's batches are of lists."""
    return seed if isinstance(seed, list) else [seed]


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), traffic={"timeout": 60})
class Sampler:
    def __init__(self) -> None:
        self.drawing = Drawing(Path(os.environ["BENCH_FOLDER"]), os.environ["BENCH_PRECISION"])

    @bentoml.api(
        route="/v1/images/sample",
        batchable=True,
        max_batch_size=int(os.environ["BENCH_BATCH"]),
        max_latency_ms=int(os.environ["BENCH_LATENCY_MS"]),
    )
    def sample(self, seed: Annotated[list[int], BeforeValidator(as_list)]) -> list[str]:
        made = self.drawing.draw(self.drawing.rows(seed))
        return [base64.b64encode(images.encode(image, "png")).decode() for image in made]
