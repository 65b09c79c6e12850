"""/openapi.json says what the app does, and the app does what it says: asked by schemathesis."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import strategies as st
from live_server import file_of, pixels
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.engine import Status, events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

from serving.app import create_app
from serving.backend import LocalBackend
from serving.jobs.desk import Jobs
from serving.settings import Settings

# Whether these can be honoured depends on the model, the image or the server's settings: no schema
# can say it.
OF_THE_MODEL = {
    "label",
    "text",
    "steps",
    "guidance",
    "prompt",
    "size",
    "tile",
    "output_format",
    "model",
    "latents",
    "mask",
    "quality",
    "scale",
    "frames",
    "frame_count",
    "frame_duration_ms",
    "square",
    "seed",
    "seeds",
    "to_label",
    "dims",
    "n",
    "of",
    "direction",
    "webhook",
    "async",
    "background",
    "markup",
    "stream",
    "partial_images",
    "response_format",
}

PICTURES = [pixels(8, 9), pixels(12, 8, 3), pixels(9, 9, 4)]
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF"}
CONFIG = {
    "seed": 1,
    "generation": {"max-examples": 4, "deterministic": True, "database": "none"},
}
QUICK = {"examples": {}, "fuzzing": {}}
# Each value of each parameter at its bounds and beyond; half a minute.
SLOW = {"coverage": {"generate-duplicate-query-parameters": True}}
PHASES = ("examples", "fuzzing", "coverage", "stateful")  # nothing that a route makes is another's


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    """What schemathesis sends where the schema asks for an image."""
    for name, format in FORMATS.items():
        held = PICTURES[:2] if name in ("jpeg", "gif") else PICTURES  # alpha, or not
        files = [file_of(picture, format) for picture in held]
        schemathesis.openapi.media_type(f"image/{name}", st.sampled_from(files))
    files = st.sampled_from([file_of(picture) for picture in PICTURES])
    schemathesis.openapi.format("binary", files)
    schemathesis.openapi.format("byte", files.map(lambda data: base64.b64encode(data).decode()))


@pytest.fixture(
    scope="module",
    params=[pytest.param(QUICK, id="quick"), pytest.param(SLOW, id="slow", marks=pytest.mark.slow)],
)
def schema(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, request
) -> Iterator[schemathesis.BaseSchema]:
    settings = Settings.validated(
        {
            "registry": str(trained),
            "models": [{"ref": "figures@production"}, {"ref": "denoiser"}],
            "limits": {"max_images": 16},
            # which are only taken: schemathesis starts the app, and never stops it
            "jobs": {"storage": str(tmp_path_factory.mktemp("jobs")), "at_once": 0},
            "poll_s": 3600,
        }
    )
    backend = LocalBackend(settings)
    backend.load()
    phases = {phase: request.param.get(phase, {"enabled": False}) for phase in PHASES}
    jobs = Jobs(settings, backend)
    app = create_app(backend, settings.limits, meters=backend.meters, jobs=jobs)
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=SchemathesisConfig.from_dict({**CONFIG, "phases": phases})
    )

    @schema.hook
    def filter_failure(context, failure, case, response) -> bool:
        """A refusal of what only this model cannot do is none of the schema."""
        if isinstance(failure, AcceptedNegativeData):
            return "" not in (case.query or {}).values()  # which is as good as absent
        if not isinstance(failure, RejectedPositiveData):
            return True
        param = response.json()["error"]["param"]
        if case.path.endswith("/detect") and param == "output_compression":
            return False  # it needs another parameter, of an image that is drawn
        if case.path.endswith("/vary") and param == "image":
            return False  # which only models read that encode
        return param not in OF_THE_MODEL

    yield schema
    backend.close()


def test_every_route_does_what_the_schema_says_and_says_what_it_does(schema):
    asked: dict[str, int] = {}
    found: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(str(getattr(event, "info", None) or event.exception))
        if isinstance(event, events.ScenarioFinished):
            asked[event.label] = asked.get(event.label, 0) + len(event.recorder.cases)
            for key, checks in event.recorder.checks.items():
                for check in checks:
                    if check.status == Status.FAILURE:
                        case = event.recorder.cases[key].value
                        failure = check.failure_info.failure
                        answer = event.recorder.interactions[key].response
                        found.append(
                            f"{event.phase} {event.label}: {failure.title}: {failure.message}\n"
                            f"{case.query} {case.body}\n"
                            f"{answer.status_code} {(answer.content or b'')[:300]!r}\n"
                        )
    assert not found, "\n".join(found)
    paths = schema.raw_schema["paths"]
    assert asked.keys() == {f"{verb.upper()} {path}" for path in paths for verb in paths[path]}
    assert all(asked.values()), asked
