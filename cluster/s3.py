"""Objects in S3, or in anything that speaks its protocol and honours conditional writes.

Credentials, region and endpoint come from where the AWS tools look for them (AWS_ACCESS_KEY_ID,
AWS_PROFILE, AWS_ENDPOINT_URL, a role, ...), in whatever process uses the storage: they are in no
file, log or pickled object of ours.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from cluster.disk import disk_errors, files_beneath, staging_for
from cluster.s3_faults import ATTEMPTS, MISSING, attempts, s3_errors, status
from cluster.storage import (
    AlreadyExists,
    Changed,
    Entry,
    NotFound,
    Refused,
    StorageError,
    check_key,
)

_WRITER = "genimg-writer"  # metadata that tells our own write from another's after a lost answer
_AT_ONCE = 8  # transfers
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=4 * _AT_ONCE,
    retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
)
_ONCE = _CONFIG.merge(Config(retries={"total_max_attempts": 1, "mode": "standard"}))

_BODY = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)  # while it is read


@cache
def _descriptions() -> Any:
    """What botocore knows of S3, megabytes that take it a tenth of a second to read."""
    return botocore.session.get_session().get_component("data_loader")


class S3Storage:
    """Objects of one bucket beneath a prefix; safe for many processes on many machines."""

    def __init__(self, url: str) -> None:
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?", url)
        if not match:
            raise StorageError(f"{url!r}: give s3://BUCKET/PREFIX")
        self.bucket = match[1]
        self.prefix = match[2] or ""
        if self.prefix:
            check_key(self.prefix)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __getstate__(self) -> dict[str, str]:  # a client holds keys; each process makes its own
        return {"bucket": self.bucket, "prefix": self.prefix}

    @cached_property
    def client(self) -> Any:
        """Tries again by itself. The bucket is asked for first, to refuse what is wrong early."""
        with s3_errors(self, "the bucket"):
            for attempt in attempts(unreached=4):
                with attempt:
                    self.once.list_objects_v2(
                        Bucket=self.bucket, Prefix=self._beneath(""), MaxKeys=1
                    )
            return self.session.client("s3", config=_CONFIG)

    @cached_property
    def once(self) -> Any:
        """Tries once: whether to try a conditional write again is for us to say."""
        try:
            return self.session.client("s3", config=_ONCE)
        except ValueError as error:  # of an endpoint's address
            raise StorageError(f"{self}: {error}; check AWS_ENDPOINT_URL") from error

    @cached_property
    def session(self) -> Any:
        # AWS's other tools, and Arrow, go by AWS_REGION; boto3 by AWS_DEFAULT_REGION alone
        ours = botocore.session.get_session()
        ours.register_component("data_loader", _descriptions())
        region = os.environ.get("AWS_REGION") or None
        return boto3.session.Session(botocore_session=ours, region_name=region)

    def read(self, key: str) -> tuple[bytes, str]:
        place = self._key(key)
        client = self.client
        with s3_errors(self, key):
            for attempt in attempts(*_BODY):
                with attempt:
                    answer = client.get_object(Bucket=self.bucket, Key=place)
                    data, etag = answer["Body"].read(), answer["ETag"]
        return data, etag

    def exists(self, key: str) -> bool:
        return self.find(key) is not None

    def find(self, key: str) -> Entry | None:
        try:
            found = self._head(key)
        except NotFound:
            return None
        return Entry(key, found["ContentLength"], found["LastModified"].timestamp())

    def create(self, key: str, data: bytes) -> None:
        if not self._put_if(key, data, IfNoneMatch="*"):
            raise AlreadyExists(f"{key} exists in {self} already")

    def replace(self, key: str, data: bytes, etag: str) -> None:
        if not self._put_if(key, data, IfMatch=etag):
            raise Changed(f"{key} in {self} was replaced or deleted meanwhile")

    def write(self, key: str, data: bytes) -> None:
        place = self._key(key)
        client = self.client
        with s3_errors(self, key):
            client.put_object(Bucket=self.bucket, Key=place, Body=data)

    def delete(self, prefix: str) -> None:
        found = (each["Key"] for page in self._pages(prefix) for each in page.get("Contents", ()))
        places = [self._key(prefix), *found]  # also what is no key of ours
        client = self.client
        with s3_errors(self, prefix):
            for start in range(0, len(places), 1000):  # what one request may name
                objects = [{"Key": place} for place in places[start : start + 1000]]
                for attempt in attempts():
                    with attempt:
                        answer = client.delete_objects(
                            Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True}
                        )
                        for refused in answer.get("Errors", ()):
                            raise ClientError({"Error": refused}, "DeleteObjects")

    def upload(self, folder: Path, prefix: str, without: Collection[str] = ()) -> None:
        names = [name for name in files_beneath(folder) if name not in without]
        if not names:
            raise StorageError(f"{folder} is not a folder with files in it")
        if self._any_beneath(prefix):
            raise AlreadyExists(f"{prefix} exists in {self} already")
        client = self.client

        def send(name: str) -> None:
            key = f"{prefix}/{name}"
            with s3_errors(self, key):
                client.upload_file(str(folder / name), self.bucket, self._key(key))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(send, names))

    def download(self, prefix: str, folder: Path) -> Path:
        check_key(prefix)
        keys = self.list(prefix)
        if not keys:
            raise NotFound(f"there is nothing beneath {prefix} in {self}")
        client = self.client
        with (
            disk_errors(folder),
            staging_for(folder) as staging,
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):

            def get(key: str) -> None:
                target = staging / key.removeprefix(f"{prefix}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with s3_errors(self, key):
                    client.download_file(self.bucket, self._key(key), str(target))

            list(pool.map(get, keys))
        return folder

    def local_path(self, prefix: str) -> None:
        check_key(prefix)

    def children(self, prefix: str) -> list[str]:
        """(One listing with a delimiter: a thousand versions cost one request.)"""
        start = len(self._beneath(prefix))
        found: set[str] = set()
        for page in self._pages(prefix, Delimiter="/"):
            found |= {each["Prefix"][start:-1] for each in page.get("CommonPrefixes", ())}
            found |= {each["Key"][start:] for each in page.get("Contents", ())}
        return sorted(name for name in found if name and not name.startswith("."))

    def list(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> Sequence[Entry]:
        start = len(self._beneath(""))
        pages = self._pages(prefix)
        found = {
            each["Key"][start:]: (each["Size"], each["LastModified"].timestamp())
            for page in pages
            for each in page.get("Contents", ())
        }
        # others may have left folder markers and hidden files, which are no keys
        return [Entry(key, *found[key]) for key in sorted(found) if is_key(key)]

    def unfinished(self, prefix: str) -> Sequence[Entry]:
        """(Whether the writer of an upload in parts is alive only its age can tell.)"""
        start = len(self._beneath(""))
        found = []
        gone = self.client.exceptions.NoSuchUpload  # it has come to its end meanwhile
        for upload in self._uploads(prefix):
            with s3_errors(self, upload["Key"]), suppress(gone):
                parts = [
                    part
                    for page in self.client.get_paginator("list_parts").paginate(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    for part in page.get("Parts", ())
                ]
                times = [upload["Initiated"], *(part["LastModified"] for part in parts)]
                size = sum(part["Size"] for part in parts)
                found.append(Entry(upload["Key"][start:], size, max(times).timestamp()))
        return found

    def discard(self, prefix: str) -> None:
        for upload in self._uploads(prefix):
            with s3_errors(self, upload["Key"]), suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def _uploads(self, prefix: str) -> Sequence[dict[str, Any]]:
        """Uploads in parts of a key or of keys beneath it, which have not come to their end."""
        place = self._key(prefix)
        pages = self.client.get_paginator("list_multipart_uploads")
        uploads: list[dict[str, Any]] = []
        with suppress(Refused), s3_errors(self, prefix):  # to list them is a right of its own
            for page in pages.paginate(Bucket=self.bucket, Prefix=place):
                uploads += page.get("Uploads", ())
        return [each for each in uploads if f"{each['Key']}/".startswith(f"{place}/")]

    def _key(self, key: str) -> str:
        check_key(key)
        return self._beneath("") + key

    def _beneath(self, prefix: str) -> str:
        """What the keys beneath a prefix start with."""
        parts = [part for part in (self.prefix, prefix) if part]
        return "/".join(parts) + "/" if parts else ""

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        if prefix:
            check_key(prefix)
        pages = self.client.get_paginator("list_objects_v2")
        with s3_errors(self, prefix):
            yield from pages.paginate(Bucket=self.bucket, Prefix=self._beneath(prefix), **options)

    def _any_beneath(self, prefix: str) -> bool:
        check_key(prefix)
        client = self.client
        with s3_errors(self, prefix):
            page = client.list_objects_v2(
                Bucket=self.bucket, Prefix=self._beneath(prefix), MaxKeys=1
            )
        return bool(page["KeyCount"])

    def _head(self, key: str) -> dict[str, Any]:
        place = self._key(key)
        client = self.client
        with s3_errors(self, key):
            answer: dict[str, Any] = client.head_object(Bucket=self.bucket, Key=place)
        return answer

    def _put_if(self, key: str, data: bytes, **condition: str) -> bool:
        """Write under a condition; whether it held.

        An answer may get lost after the store has written. The next attempt then finds the
        condition broken by ourselves, which the token in the object's metadata shows.
        """
        place = self._key(key)
        token = uuid.uuid4().hex
        _ = self.client  # refuses a wrong bucket or wrong keys
        unsure = False
        with s3_errors(self, key):
            for attempt in attempts():
                with attempt:
                    try:
                        self.once.put_object(
                            Bucket=self.bucket,
                            Key=place,
                            Body=data,
                            Metadata={_WRITER: token},
                            **condition,
                        )
                        return True
                    except ClientError as error:
                        code = error.response["Error"]["Code"]
                        if code == "PreconditionFailed" or code in MISSING:
                            return unsure and self._wrote(key, token)
                        unsure = unsure or status(error) >= 500
                        raise
                    except HTTPClientError:
                        unsure = True
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _wrote(self, key: str, token: str) -> bool:
        try:
            return bool(self._head(key)["Metadata"].get(_WRITER) == token)
        except NotFound:
            return False


def is_key(name: str) -> bool:
    return all(part and not part.startswith(".") for part in name.split("/"))
