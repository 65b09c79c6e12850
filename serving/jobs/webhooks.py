"""Telling another server that a job has ended, as Standard Webhooks has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import os
import time
import urllib.request
from collections.abc import Collection
from typing import Any, NoReturn
from urllib.parse import urlsplit

from serving.errors import ApiError, bad_value
from serving.jobs.job import Job

logger = logging.getLogger(__name__)

SECRET = "GENIMG_WEBHOOK_SECRET"  # variable: whsec_ and base64; without it nothing is signed
PAUSES = (0.0, 1.0, 4.0)  # seconds before each try
_PATIENCE_S = 5.0
LONGEST = 2000  # characters of a URL


def check(url: str, hosts: Collection[str]) -> None:
    """ApiError for a URL that is not told. hosts: those that may be, as example.org:8080."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise bad_value("webhook", url, "this is no URL") from None
    host = f"{(parts.hostname or '').lower()}{port}"
    if parts.scheme not in ("http", "https") or parts.username is not None or not host:
        raise bad_value("webhook", url, "give http(s)://HOST/PATH, without a user")
    if len(url) > LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise bad_value("webhook", url, f"at most {LONGEST} characters, escaped as in a URL")
    if host not in {each.lower() for each in hosts}:
        message = f"{host} is not told of jobs here; its host must be in the server's"
        raise ApiError(400, "invalid_value", f"webhook: {message} jobs.webhook_hosts", "webhook")


def tell(job: Job, keep_s: float) -> bool:
    """Post what is known of a job to its webhook; whether it was taken."""
    assert job.webhook is not None, "only those that have one are told"
    content = {"type": f"job.{job.state}", "timestamp": job.ended, "data": job.public(None, keep_s)}
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json", **signature(job.id, body)}
    request = urllib.request.Request(job.webhook, body, headers)
    try:
        with _OPENER.open(request, timeout=_PATIENCE_S):
            return True
    except (OSError, ValueError) as error:  # HTTP's errors are OSErrors
        logger.warning("%s: its webhook was not told: %s", job.id, error)
        return False


def signature(id: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """Headers by which a receiver that knows the secret can tell that it was we who sent this."""
    at = str(int(time.time() if now is None else now))
    headers = {"webhook-id": id, "webhook-timestamp": at}
    if secret := os.environ.get(SECRET):
        content = b".".join((id.encode(), at.encode(), body))
        digest = hmac.new(key_of(secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def key_of(secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError(f"{SECRET}: give whsec_ and base64") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another place may be on none of the allowed hosts."""

    def redirect_request(self, *_: Any) -> NoReturn:
        raise OSError("it redirects, which is not followed")


_OPENER = urllib.request.build_opener(_NoRedirects)
