"""What goes wrong with an S3: which faults may pass, how patiently, and the others in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from cluster.storage import NotFound, Refused, StorageError

ATTEMPTS = 10  # with growing pauses: half a minute of faults is survived
MISSING = {"NoSuchKey", "404", "NotFound"}

_UNREACHED = (ConnectTimeoutError, EndpointConnectionError)  # the store has seen nothing of it
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_PASSING = {
    "ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "SlowDown",
}  # fmt: skip


class Bucket(Protocol):
    """What is named where something goes wrong."""

    bucket: str


def attempts(*faults: type[BaseException], unreached: int | None = None) -> Retrying:
    """Attempts with growing, random pauses for faults that may pass (of these kinds, or any).

    unreached: attempts where nobody listens at all. By default as many as for other faults; fewer
    where the address is new and probably wrong, which one wants to know soon.
    """

    def enough(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        few = unreached if isinstance(error, _UNREACHED) else None
        return state.attempt_number >= (few or ATTEMPTS)

    return Retrying(
        stop=enough,
        wait=wait_random_exponential(multiplier=0.2, max=10),
        retry=retry_if_exception(
            lambda error: isinstance(error, faults) if faults else may_pass(error)
        ),
        reraise=True,
    )


def may_pass(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        code = status(error)
        return code >= 500 or code == 429 or error.response["Error"]["Code"] in _PASSING
    passing = (HTTPClientError, IncompleteReadError, ResponseStreamingError, *_UNREACHED)
    return isinstance(error, passing)


def status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))


@contextmanager
def s3_errors(storage: Bucket, key: str) -> Iterator[None]:
    """Turns what the store refuses into a StorageError that says what to do."""
    try:
        yield
    except ClientError as error:
        raise refusal(storage, key, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"{storage}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or give the machine a role"
        ) from error
    except _UNREACHED as error:
        address = "{0.scheme}://{0.netloc}".format(urlsplit(error.kwargs["endpoint_url"]))
        raise StorageError(
            f"{storage}: nobody answers at {address}; check the network and AWS_ENDPOINT_URL"
        ) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise refusal(storage, key, error.__context__) from error
        raise StorageError(f"{storage}: {key}: {error}") from error
    except (BotoCoreError, RetriesExceededError) as error:
        raise StorageError(f"{storage}: {key}: {error}") from error


def refusal(storage: Bucket, key: str, error: ClientError) -> StorageError:
    code = error.response["Error"]["Code"]
    if code in MISSING:
        return NotFound(f"there is no {key} in {storage}")
    kind: type[StorageError] = Refused
    if code == "NoSuchBucket":
        what = f"there is no bucket {storage.bucket!r}; create it, or correct the name"
    elif code in _WRONG_KEYS:
        what = f"the credentials are refused ({code}); check AWS_ACCESS_KEY_ID and its kin"
    elif code in _DENIED:
        what = f"no permission for {key}; ask for a policy that allows it"
    else:
        kind = StorageError
        what = f"{key}: {code}: {error.response['Error'].get('Message', '')}"
    return kind(f"{storage}: {what}")
