"""Results that a server makes: files are sent as they are, and some requests at a time."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from genimg import images
from genimg.errors import InputError
from genimg.operations import Operation
from genimg.operations.drawing import Seeded
from jobs.console import say
from jobs.offline.inputs import files_of, latents_in
from jobs.offline.job import Item, Job
from jobs.offline.making import Failure, Image
from jobs.offline.record import settled
from jobs.offline.streams import ahead, runs
from jobs.remote.server import IN_FLIGHT, Refused, Server

AT_ONCE = 16  # images that one request draws
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Answered:
    """An image, and what the server made of it."""

    job: Job
    item: Item
    answer: httpx.Response

    def picture(self, key: str) -> bytes:
        return self.answer.content  # in its format, as it was asked for

    def told(self) -> dict[str, Any]:
        said, name = self.answer.json(), self.job.operation
        near = {key: said[key][0] for key in ("psnr", "plain_psnr") if key in said}
        return {name: said["data"][0]} | near


class ByServer:
    """Makes what a job wants (see Maker), all of it by one version of a model."""

    def __init__(self, job: Job, server: Server, model: str | None) -> None:
        self.job = job
        self.operation = job.asked
        self.server = server
        self.model = model
        self._agreed = False
        self._lock = threading.Lock()

    def of_items(
        self, items: Sequence[Item], coders: ThreadPoolExecutor
    ) -> Iterator[Answered | Failure]:
        return in_flight(self.server, self.asked, items)

    def asked(self, item: Item) -> Answered | Failure:
        """An image, and what the server says. Raises InputError where it would say so of all."""
        parameters: dict[str, str | int | None] = {}
        if self.job.form == "pictures":
            format = images.format_of(Path(self.job.picture(item)))
            lossy = format in ("jpeg", "webp")
            parameters = {
                "response_format": "image",
                "output_format": format,
                "output_compression": self.job.save_quality if lossy else None,
            }
        try:
            files = files_of(self.job, item)
        except InputError as error:
            return Failure(item, str(error))
        try:
            answer = self.server.ask(self.operation, files, model=self.model, **parameters)
        except Refused as error:
            if self.concerns_all(error):
                raise
            return Failure(item, str(error))
        self.agree(answer)
        return Answered(self.job, item, answer)

    def concerns_all(self, error: Refused) -> bool:
        """Whether not the image is to blame, but the key, the model or, before anything went well,
        an option."""
        options = (*type(self.operation).model_fields, "model")
        of_option = error.param in options and not self._agreed
        return error.status in (401, 403, 404) or of_option

    def agree(self, answer: httpx.Response) -> None:
        """InputError where another version answers than when the job began."""
        found = {"digest": version_of(answer), "precision": answer.headers.get("x-precision", "")}
        with self._lock:
            if not self._agreed:
                tell_model(self.server, self.model, answer)
                self.job, self._agreed = settled(self.job, **found), True
        began = {key: getattr(self.job, key) for key in found}
        if found != began:
            now, then = (f"{each['digest']} in {each['precision']}" for each in (found, began))
            raise InputError(
                f"{self.server.url}: {now} answers now, and the job began with {then};"
                " name another place, or --overwrite"
            )

    def of_numbers(self, numbers: Iterable[int]) -> Iterator[Image]:
        source = next(iter(self.job.sources), None)
        latents = None if source is None else latents_in(source.place)

        def drawn(span: tuple[int, int]) -> list[Image]:
            answer = drawn_by(self.server, self.operation, self.model, span, latents=latents)
            self.agree(answer)
            return [
                Image(number, pixels, entry.get("label", ""))
                for number, (pixels, entry) in enumerate(pictures_of(answer), span[0])
            ]

        for made in in_flight(self.server, drawn, runs(numbers, AT_ONCE)):
            yield from made

    def classes(self) -> tuple[str, ...]:
        if self.model is None:
            raise InputError("--shard-rows: name the model with -m, so that its classes are known")
        named = (each for each in self.server.models if self.model in (each["id"], each["name"]))
        return tuple(next(named, {}).get("classes", ()))


def in_flight(server: Server, function: Callable[[T], R], things: Iterable[T]) -> Iterator[R]:
    """function(thing) of each, in order, several at a time; each asks the server."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            yield from ahead(function, things, pool, IN_FLIGHT)
        except BaseException:
            server.give_up()  # or the others would keep us waiting
            raise


def drawn_by(
    server: Server,
    operation: Operation,
    model: str | None,
    span: tuple[int, int],
    files: Mapping[str, bytes] = {},
    latents: np.ndarray | None = None,
) -> httpx.Response:
    """The answer with those images of an operation that have the numbers of a span.

    latents: float32 [N, D], a row an image, where it is drawn of these
    """
    start, stop = span
    if isinstance(operation, Seeded):
        seed = operation.seed + start if operation.seed >= 0 else operation.seed
        operation = operation.model_copy(update={"seed": seed, "n": stop - start})
    elif latents is not None:
        files = {**files, "latents": as_file(latents[start:stop])}
    return server.ask(
        operation, files, model=model, response_format="b64_json", output_format="png"
    )


def pictures_of(answer: httpx.Response) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """(uint8 [H, W, C], what is told of it) of each image of an answer in JSON."""
    return [
        (images.decode(base64.b64decode(entry["b64_json"]), keep_alpha=True), entry)
        for entry in answer.json()["data"]
    ]


def as_file(latents: np.ndarray) -> bytes:
    """A .npy file."""
    out = io.BytesIO()
    np.save(out, latents)
    return out.getvalue()


def version_of(answer: httpx.Response) -> str:
    headers = answer.headers
    return f"{headers.get('x-model-id', '?')} version {headers.get('x-model-version', '?')}"


def tell_model(server: Server, model: str | None, answer: httpx.Response) -> None:
    """Which one answers, where none was named."""
    if model is None:
        say(f"model: {version_of(answer)} of {server.url}; -m names another")
