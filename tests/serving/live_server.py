"""A real server on a free port of this machine, and the pictures that are sent to it."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.types import ASGIApp

from cluster import keys as stored
from serving.app import create_app
from serving.backend import LocalBackend
from serving.jobs.desk import Jobs
from serving.keys import keys_of
from serving.settings import Settings


@contextmanager
def running(app: ASGIApp, **options: Any) -> Iterator[str]:
    """The URL at which uvicorn serves an app until the end of the block. options: uvicorn's"""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        scheme = "https" if options.get("ssl_certfile") else "http"
        yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The URL at which the models of some settings are served until the end of the block."""
    backend = LocalBackend(settings)
    backend.load()
    keys = keys_of(settings, backend.meters)
    jobs = Jobs(settings, backend, backend.meters)
    app = create_app(backend, settings.limits, meters=backend.meters, keys=keys, jobs=jobs)
    try:
        with running(app) as url:
            yield url
    finally:
        backend.close()
        if keys:
            keys.close()


def made_key(file: Path, name: str, **may: object) -> str:
    """The text of a new key in a file, which may do what is said."""
    key, text = stored.new(name, **may)
    stored.KeyFile(str(file)).add(key)
    return text


def until(happened: Callable[[], object], patience: float = 60) -> None:
    """Wait for something; fails after `patience` seconds."""
    end = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def pixels(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Smooth waves with a little noise, [H, W, C] or [H, W]."""
    random = np.random.default_rng(seed)
    height, width, *rest = shape
    waves = np.sin(np.arange(height) / 7)[:, None] + np.cos(np.arange(width) / 5)
    levels = waves.reshape(height, width, *[1] * len(rest)) * 0.2 + 0.5
    levels = (levels + random.normal(0, 0.04, shape)).clip(0, 1)
    return (levels * np.iinfo(dtype).max).round().astype(dtype)


def file_of(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(out, format, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))
