"""Fixtures that every room's tests share."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from local_s3 import new_bucket, s3_server

settings.register_profile("genimg", deadline=None)  # the machine may be busy
settings.load_profile("genimg")

# A script in the background ignores Ctrl-C, and all that it starts would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` looks for those that start Ray clusters in the rooms that import Ray."""
    for item in items:
        if item.get_closest_marker("ray") and item.path.parent.name not in ("jobs", "serving"):
            raise pytest.UsageError(f"{item.nodeid}: starts Ray; move it to tests/jobs or serving")


def pytest_collection_finish() -> None:
    """Thousands of tests and all their libraries are here to stay: nobody need look at them again.

    A full collection of garbage, of which there are hundreds, takes a second where they count.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept on this machine is kept for this session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENIMG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that lie beside a checkout on the project's own machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here ({folder})")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3 that this process, and those that it starts, find by the usual AWS variables."""
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-5f3a")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # which boto3 reads
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        yield address


@pytest.fixture
def bucket(s3: str) -> str:
    """The address of a new, empty bucket."""
    return new_bucket()


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty storage: each test that asks for it runs over disk and S3."""
    if request.param == "disk":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('bucket')}/some/prefix"
