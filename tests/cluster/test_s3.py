"""What only S3 can show: faults, stalls and lost answers, refusals in words, and kept secrets."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from local_s3 import free_port, new_bucket, s3_server
from test_concurrency import at_once

from cluster import s3 as s3_module
from cluster import s3_faults
from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry
from cluster.s3 import S3Storage
from cluster.storage import AlreadyExists, Changed, NotFound, Refused, StorageError


@pytest.fixture(scope="module")
def failing() -> Iterator[str]:
    """The address of an S3 of which every third call fails, half of those after all was done."""
    with s3_server("--fail-every", "3") as address:
        yield address


def bucket_at(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    return new_bucket()


def test_faults_delay_but_lose_nothing(s3: str, failing: str, tmp_path: Path, monkeypatch):
    """Lost answers included: what was written then counts as written, once."""
    storage = open_storage(bucket_at(failing, monkeypatch))
    for number in range(12):
        storage.create(f"a/{number}", b"1")
        with pytest.raises(AlreadyExists):
            storage.create(f"a/{number}", b"2")
        _, etag = storage.read(f"a/{number}")
        storage.replace(f"a/{number}", b"3", etag)
        with pytest.raises(Changed):
            storage.replace(f"a/{number}", b"4", etag)
    assert storage.children("a") == sorted(map(str, range(12)))
    assert {storage.read(key)[0] for key in storage.list("a")} == {b"3"}

    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(9):
        (folder / str(number)).write_bytes(os.urandom(1000))
    storage.upload(folder, "b")
    back = storage.download("b", tmp_path / "back")
    for path in folder.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes()
    storage.delete("a")
    assert storage.children("") == ["b"]


def test_moves_of_aliases_at_once_survive_faults(
    s3: str, failing: str, checkpoint: Path, monkeypatch
):
    """Each is in the history exactly once, and nobody is told of a conflict with himself."""
    place = bucket_at(failing, monkeypatch)
    version = Registry(open_storage(place)).register("dcgan", checkpoint, {}, {})

    def move(number: int) -> None:
        promote(Registry(open_storage(place)), version.reference, f"alias{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(move, range(10)))
    moves = [move.alias for move in Registry(open_storage(place)).aliases("dcgan").history]
    assert sorted(moves) == sorted(f"alias{number}" for number in range(10))


@pytest.mark.slow
def test_twenty_processes_on_a_failing_store_lose_nothing(
    s3: str, failing: str, checkpoint: Path, monkeypatch
):
    registry = Registry(open_storage(bucket_at(failing, monkeypatch)))
    printed = at_once(registry, [["register", str(checkpoint)]] * 20)
    numbers = sorted(number for numbers in printed for number in numbers)
    assert registry.numbers("dcgan") == numbers
    assert len(set(numbers)) == 40
    assert registry.verify("dcgan") == []


def test_stalls_delay_but_lose_nothing(s3: str, monkeypatch):
    monkeypatch.setattr(s3_module, "_CONFIG", s3_module._CONFIG.merge(Config(read_timeout=1)))
    monkeypatch.setattr(s3_module, "_ONCE", s3_module._ONCE.merge(Config(read_timeout=1)))
    with s3_server("--stall-every", "5", "3") as address:
        storage = open_storage(bucket_at(address, monkeypatch))
        for number in range(5):
            storage.create(f"a/{number}", b"%d" % number)
        found = [storage.read(f"a/{number}")[0] for number in range(5)]
    assert found == [b"0", b"1", b"2", b"3", b"4"]


def test_a_store_that_is_down_for_good_is_told_after_some_attempts(s3: str, monkeypatch):
    with s3_server("--fail-every", "1") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setattr(s3_faults, "ATTEMPTS", 3)
        with pytest.raises(StorageError, match="InternalError"):
            open_storage("s3://bucket/x").read("a")


def test_a_bucket_that_is_not_there_is_named(s3: str):
    for attempt in (
        lambda storage: storage.read("a"),
        lambda storage: storage.create("a", b""),
        lambda storage: storage.list(""),
    ):
        with pytest.raises(
            StorageError, match="there is no bucket 'never-made'; create it"
        ) as told:
            attempt(open_storage("s3://never-made/x"))
        assert not isinstance(told.value, NotFound)


def test_an_address_where_nobody_listens_is_named(s3: str, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match=r"nobody answers at http://127.*AWS_ENDPOINT_URL"):
        open_storage("s3://bucket/x").read("a")


def test_an_address_without_its_scheme_is_told(s3: str, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(StorageError, match=r"127.0.0.1:9000.*check AWS_ENDPOINT_URL"):
        open_storage("s3://bucket/x").read("a")


def test_the_region_may_be_given_as_to_other_tools(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert S3Storage("s3://bucket/x").once.meta.region_name == "eu-central-1"


def test_no_credentials_at_all_is_told(s3: str, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        open_storage("s3://bucket/x").read("a")


def test_wrong_keys_and_missing_rights_are_told_apart(s3: str, tmp_path: Path, monkeypatch):
    """(moto checks keys and rights after a number of calls that one may use to set them up.)"""
    with s3_server("--check-rights-after", "4") as address:
        bucket = bucket_at(address, monkeypatch)
        identities = boto3.client("iam")
        identities.create_user(UserName="reader")
        identities.put_user_policy(
            UserName="reader",
            PolicyName="read",
            PolicyDocument=json.dumps({
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:List*"], "Resource": "*"}
                ],
            }),
        )  # fmt: skip
        key = identities.create_access_key(UserName="reader")["AccessKey"]
        with pytest.raises(StorageError, match=r"credentials are refused \(InvalidAccessKeyId\)"):
            open_storage(bucket).read("a")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        with pytest.raises(StorageError, match=r"refused \(SignatureDoesNotMatch\)"):
            open_storage(bucket).read("a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        storage = open_storage(bucket)
        with pytest.raises(NotFound):
            storage.read("a")
        for write in (storage.create, storage.write):
            with pytest.raises(StorageError, match="no permission for a/b; ask for a policy"):
                write("a/b", b"")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/b").write_bytes(b"")
        with pytest.raises(Refused, match="no permission for a/b; ask for a policy"):
            storage.upload(tmp_path / "folder", "a")


def test_an_interrupted_upload_is_no_version_and_the_next_one_is(bucket: str, tmp_path: Path):
    registry = Registry(open_storage(bucket))
    (tmp_path / "weights").write_bytes(b"w")
    registry.storage.create("models/dcgan/versions/00001.claim", b"{}")
    registry.storage.write("models/dcgan/versions/00001/weights", b"half of it")
    assert registry.names() == []
    assert registry.register("dcgan", tmp_path, {}, {}).number == 2


def test_secrets_are_in_no_pickle_and_no_message(bucket: str, caplog):
    storage = open_storage(bucket)
    caplog.set_level(logging.INFO)
    storage.create("a", b"1")  # the client exists now
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret.encode() not in pickle.dumps(storage)
    assert pickle.loads(pickle.dumps(storage)).read("a")[0] == b"1"
    assert secret not in repr(vars(storage)) + str(storage) + caplog.text


def test_a_thread_each_may_use_one_storage(bucket: str):
    storage = open_storage(bucket)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        storage.create(f"a/{number}", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(storage.list("a")) == 8


def test_importing_the_rooms_needs_no_boto3():
    """It takes a quarter of a second, which `genimg --help` should not."""
    code = "import sys, cluster.storage, cluster.registry; sys.exit('boto3' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
