"""Clients of the servers that are measured: one, or many by wrk, without a pause or at a rate."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

CLIENTS = 64  # enough that a full batch always waits
SCRIPT = """
local seed = 0
request = function()
  seed = seed + 1
  local body = '{"seed": ' .. (seed % 1000000) .. '}'
  return wrk.format("POST", "/v1/images/sample", {["Content-Type"] = "application/json"}, body)
end
"""
MANY = 256  # clients that ask now and then
PAUSES = """
math.randomseed(1)
delay = function() return -math.log(1 - math.random()) * %f end
"""


def asked(port: int, seed: int = 0) -> bool:
    """Whether an image came."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/images/sample",
        json.dumps({"seed": seed}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.read())
    except OSError:
        return False


def latency(port: int, requests: int) -> float:
    """Median seconds of one request after another, on one connection."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for seed in range(requests):
        began = time.perf_counter()
        connection.request(
            "POST", "/v1/images/sample", json.dumps({"seed": seed}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == 200
        times.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(times)


def wrk(port: int, seconds: int, place: str, refuses: bool = False) -> float:
    """Answered requests a second, of clients that ask without a pause. Raises where one was an
    error, unless the server `refuses` what would be late: that is no answer."""
    return _wrk(port, seconds, place, SCRIPT, CLIENTS, refuses)[0]


def latencies_at(rate: float, port: int, seconds: int, place: str) -> tuple[float, float, float]:
    """(answered requests a second, median and 99th percentile of seconds) of many clients that ask
    at random times, together about `rate` times a second."""
    pause = MANY / rate  # of each, on average, less what an answer takes
    for _ in range(2):
        made, median, last = _wrk(port, seconds, place, SCRIPT + PAUSES % (1000 * pause), MANY)
        pause *= made / rate
    return made, median, last


def _wrk(
    port: int, seconds: int, place: str, text: str, clients: int, refuses: bool = False
) -> tuple[float, float, float]:
    script = Path(place, "seeds.lua")
    script.write_text(text)
    printed = subprocess.run(
        [
            "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script),
            f"http://127.0.0.1:{port}",
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    words = {line.split()[0]: line.split()[-1] for line in printed.splitlines() if line.split()}
    asked = int(re.findall(r"(\d+) requests in", printed)[0])
    refused = int(words.get("Non-2xx", 0))
    assert refuses or not refused, printed
    rate = float(words["Requests/sec:"]) * (1 - refused / max(asked, 1))
    return rate, _seconds(words["50%"]), _seconds(words["99%"])


def _seconds(text: str) -> float:
    """As wrk writes them: 812.00us, 4.11ms, 1.02s, 1.00m."""
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]
