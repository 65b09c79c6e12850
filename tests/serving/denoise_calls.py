"""Denoising over HTTP in one short call, and a picture to send."""

import base64

import httpx
from live_server import file_of, pixels

ROUTE = "/v1/images/denoise"
RAW = {"content-type": "application/octet-stream"}
PICTURE = pixels(21, 34, 3)
PNG = file_of(PICTURE)


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def denoised(client: httpx.Client, data: bytes, **parameters) -> httpx.Response:
    answer = client.post(ROUTE, content=data, params=parameters, headers=RAW)
    assert answer.status_code == 200, answer.text
    return answer
