"""Lines of the log: one for each request, with its id, and nothing that need not be in it."""

import asyncio
import json
import logging
import os

import httpx
import pytest
from live_server import running, until
from test_app import Told

from cluster import keys as stored
from serving import logs
from serving.app import create_app
from serving.keys import Keys
from serving.logs import Lines
from serving.metrics import Meters
from serving.requests import Answer, Timings
from serving.settings import Settings

SAMPLE = "/v1/images/sample"
ANSWER = Answer(
    (b"image",), "png", "4x4", (1,), "m", 3, Timings(1.04, 2, 3), "float32", pixels=16
)  # fmt: skip


def read(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_request_is_one_line_of_json_with_its_id(tmp_path):
    file = tmp_path / "log"
    key, text = stored.new("alice")
    keys = Keys(lambda: [key])
    app = create_app(Told(ANSWER), keys=keys, lines=Lines("json", str(file)))
    with running(app) as url:
        sent = {"Authorization": f"Bearer {text}", "X-Request-ID": "one", "User-Agent": "spy"}
        body = b'{"seed": 987654}'
        httpx.post(f"{url}{SAMPLE}?model=m", content=body, headers=sent)
        httpx.get(f"{url}/v1/models?secret", headers={"X-Request-ID": "two" * 99})
    keys.close()
    one, two = read(file)
    assert one.pop("time").endswith("+00:00")
    assert one.pop("total_ms") > 0
    assert one == {
        "request_id": "one", "method": "POST", "route": SAMPLE, "status": 200, "key": "alice",
        "model": "m", "version": 3, "pixels": 16, "queue_ms": 1.0, "compute_ms": 2,
        "encode_ms": 3, "bytes_in": len(body), "bytes_out": 5, "gone": False,
    }  # fmt: skip
    assert (two["status"], two["error"], two["route"]) == (401, "invalid_api_key", "/v1/models")
    assert two["request_id"] == ("two" * 99)[:128]
    assert not any(each in file.read_text() for each in (text, "987654", "spy", "127.0.0.1"))


def test_a_fault_of_ours_is_told_with_the_id_of_its_request(tmp_path):
    file = tmp_path / "log"
    settings = {"models": [{"ref": "m"}], "log_format": "json", "log_file": str(file)}
    lines = logs.opened(Settings.validated(settings), Meters())
    try:
        with running(create_app(Told(ZeroDivisionError("odd")), lines=lines)) as url:
            answer = httpx.post(f"{url}{SAMPLE}", headers={"X-Request-ID": "seven"})
            assert answer.status_code == 500
        fault, line = read(file)
        assert fault["request_id"] == line["request_id"] == "seven"
        assert (fault["level"], line["status"]) == ("error", 500)
        assert fault["traceback"].endswith("ZeroDivisionError: odd")
    finally:
        for room in ("serving", "cluster", "genimg"):
            logging.getLogger(room).handlers.clear()
            logging.getLogger(room).setLevel(logging.NOTSET)


def test_a_client_that_has_gone_is_told_so(tmp_path):
    file = tmp_path / "log"
    app = create_app(Told(asyncio.CancelledError()), lines=Lines("json", str(file)))
    with running(app) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}{SAMPLE}", timeout=0.2)
        until(file.read_text)
    (line,) = read(file)
    assert (line["status"], line["gone"]) == (499, True)


def test_text_is_of_words_that_nothing_in_them_can_forge(tmp_path):
    lines = Lines("text", str(tmp_path / "log"))
    lines.write({"request_id": "a\nb status=200", "status": 401, "empty": ""})
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.split(" ", 1)[1] == r'request_id="a\nb status=200" status=401 empty='


def test_lines_that_nobody_takes_are_lost_and_counted_and_keep_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    meters = Meters()
    lines = Lines("json", str(tmp_path / "pipe"), meters.lines_lost.inc)
    for number in range(1000):
        lines.write({"number": number, "text": "x" * 500})
    taken = os.read(reader, 10_000_000).splitlines()
    assert [json.loads(line)["number"] for line in taken] == list(range(len(taken)))
    lost = meters.registry.get_sample_value("genimg_log_lines_lost_total")
    assert lost == 1000 - len(taken) > 0
    lines.write({"number": 1000})
    assert json.loads(os.read(reader, 1000))["number"] == 1000
    os.close(reader)
    lines.write({"number": 1001})
    assert meters.registry.get_sample_value("genimg_log_lines_lost_total") == lost + 1


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_long_line_is_cut_to_what_a_pipe_takes_whole(tmp_path, format):
    lines = Lines(format, str(tmp_path / "log"))
    lines.write({"message": "ü" * 3000, "traceback": "\n" * 5000 + "the end"})
    data = (tmp_path / "log").read_bytes()
    assert data.count(b"\n") == 1
    assert len(data) <= 4096
    if format == "json":
        assert json.loads(data)["traceback"].endswith("the end")


def test_a_file_that_cannot_be_written_to_is_refused(tmp_path):
    with pytest.raises(OSError, match="Is a directory"):
        Lines("json", str(tmp_path))
