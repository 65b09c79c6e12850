"""A store that cannot be reached for a moment: what never arrived is sent again, once it can."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from local_s3 import free_port, new_bucket

from cluster import s3 as s3_module
from cluster.places import open_storage
from cluster.registry import Registry
from cluster.storage import AlreadyExists, Changed, Storage


class Door:
    """A port of this machine that leads to another, refuses connections, or leaves them waiting."""

    def __init__(self, target: str) -> None:
        self.target = (urlsplit(target).hostname, urlsplit(target).port)
        self.port = free_port()
        self.listener: socket.socket | None = None
        self.open_ends: list[socket.socket] = []
        self.callers: list[socket.socket] = []

    def open(self) -> None:
        self.close()
        self.listener = self._listening(16)
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        """From now on the port refuses, and what was connected is no more."""
        for each in [self.listener, *self.open_ends, *self.callers]:
            if each:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self.open_ends.clear()
        self.callers.clear()

    def ignore(self) -> None:
        """Nobody accepts, and the queue is full: who knocks gets no answer at all."""
        self.close()
        self.listener = self._listening(0)
        for _ in range(3):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", self.port))
            self.callers.append(caller)

    def _listening(self, backlog: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        return listener

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self.target)
                self.open_ends += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def door(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """An open door to the S3 of the tests, which the storages of a test go through."""
    door = Door(s3)
    door.open()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{door.port}")
    short = Config(connect_timeout=0.5)
    monkeypatch.setattr(s3_module, "_CONFIG", s3_module._CONFIG.merge(short))
    monkeypatch.setattr(s3_module, "_ONCE", s3_module._ONCE.merge(short))
    yield door
    door.close()


FAULTS = pytest.mark.parametrize("fault", [Door.close, Door.ignore])


@FAULTS
def test_conditional_writes_wait_for_the_store_to_be_reached(
    door: Door, fault: Callable[[Door], None]
):
    storage = open_storage(new_bucket())
    assert storage.children("") == []  # the address is known to be right
    for turn in range(2):
        interrupted(door, fault, lambda turn=turn: storage.create(f"a/{turn}", b"1"))
        with pytest.raises(AlreadyExists):
            storage.create(f"a/{turn}", b"2")
        _, etag = storage.read(f"a/{turn}")
        interrupted(
            door, fault, lambda turn=turn, etag=etag: storage.replace(f"a/{turn}", b"3", etag)
        )
        with pytest.raises(Changed):
            storage.replace(f"a/{turn}", b"4", etag)
    assert [storage.read(key)[0] for key in storage.list("a")] == [b"3", b"3"]


@FAULTS
def test_a_registration_outlasts_a_blip_before_its_marker(
    door: Door, fault: Callable[[Door], None], checkpoint
):
    storage = open_storage(new_bucket())

    class Blip:
        """The storage, which cannot be reached just when version.json is due."""

        def __getattr__(self, name: str):
            return getattr(storage, name)

        def create(self, key: str, data: bytes) -> None:
            if key.endswith("version.json"):
                interrupted(door, fault, lambda: storage.create(key, data))
            else:
                storage.create(key, data)

    registry: Registry = Registry(Blip())
    assert registry.register("dcgan", checkpoint, {}, {}).number == 1
    assert registry.verify("dcgan") == []


def interrupted(door: Door, fault: Callable[[Door], None], write: Callable[[], None]) -> None:
    """Write while the door has a fault that passes after a second."""
    fault(door)
    opener = threading.Timer(1, door.open)
    opener.start()
    try:
        write()
    finally:
        opener.join()


def test_the_door_does_what_it_says(door: Door):
    """Or the tests above would prove nothing."""
    storage: Storage = open_storage(new_bucket())
    storage.create("a", b"")
    for fault, told in ((Door.close, "Could not connect"), (Door.ignore, "Connect timeout")):
        fault(door)
        for _ in range(2):  # the first may find the old connection closed
            with pytest.raises(Exception, match=r"onnect") as caught:
                storage.once.head_object(Bucket=storage.bucket, Key="a")
        assert told in str(caught.value)
        door.open()
