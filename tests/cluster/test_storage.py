"""What every Storage promises, on disk and on S3."""

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import contents

from cluster.places import open_storage
from cluster.storage import AlreadyExists, Changed, NotFound, Storage, StorageError


@pytest.fixture
def storage(place: str) -> Storage:
    return open_storage(place)


def test_reads_what_was_written(storage: Storage):
    storage.write("a/b.json", b"one")
    assert storage.read("a/b.json")[0] == b"one"
    storage.write("a/b.json", b"")
    assert storage.read("a/b.json")[0] == b""


def test_etag_is_a_function_of_content_that_differs_with_it(storage: Storage):
    storage.write("x", b"one")
    first = storage.read("x")[1]
    storage.write("x", b"two")
    second = storage.read("x")[1]
    storage.write("x", b"one")
    assert first != second
    assert storage.read("x")[1] == first


@pytest.mark.parametrize("key", ["nothing", "nothing/here", "a", "a/b.json/c"])
def test_reading_what_is_no_object_raises_not_found(storage: Storage, key: str):
    storage.write("a/b.json", b"one")
    assert not storage.exists(key)
    with pytest.raises(NotFound, match=key):
        storage.read(key)


def test_create_refuses_to_replace(storage: Storage):
    storage.create("a/b", b"one")
    with pytest.raises(AlreadyExists, match="a/b"):
        storage.create("a/b", b"two")
    assert storage.read("a/b")[0] == b"one"


def test_replace_takes_the_etag_that_was_read_and_no_older_one(storage: Storage):
    storage.create("a", b"one")
    _, first = storage.read("a")
    storage.replace("a", b"two", first)
    with pytest.raises(Changed, match="replaced"):
        storage.replace("a", b"three", first)
    assert storage.read("a")[0] == b"two"


def test_replace_of_a_deleted_object_raises_changed(storage: Storage):
    storage.create("a", b"one")
    _, etag = storage.read("a")
    storage.delete("a")
    with pytest.raises(Changed, match="deleted"):
        storage.replace("a", b"two", etag)
    assert not storage.exists("a")


def test_list_and_children_know_names_from_beginnings_of_names(storage: Storage):
    for key in ("a/b", "a/c/d", "a/c-d", "ab/x", "z"):
        storage.write(key, b"")
    assert storage.list("") == ["a/b", "a/c-d", "a/c/d", "ab/x", "z"]
    assert storage.list("a") == ["a/b", "a/c-d", "a/c/d"]
    assert storage.list("a/c") == ["a/c/d"]
    assert storage.list("nothing") == []
    assert storage.children("") == ["a", "ab", "z"]
    assert storage.children("a") == ["b", "c", "c-d"]
    assert storage.children("nothing") == []


def test_delete_takes_the_object_and_all_beneath_but_no_neighbour(storage: Storage):
    for key in ("a/b/c", "a/b/d/e", "a/bc"):
        storage.write(key, b"")
    storage.delete("a/b")
    storage.delete("a/b")
    storage.delete("never/was")
    assert storage.list("") == ["a/bc"]
    storage.delete("a/bc")
    assert storage.children("") == []  # no empty folders show


def test_a_folder_comes_back_as_it_was_uploaded(storage: Storage, folder: Path, tmp_path: Path):
    storage.upload(folder, "x/1")
    assert storage.list("x/1") == ["x/1/a.bin", "x/1/deep/er/b.json", "x/1/empty"]
    back = storage.download("x/1", tmp_path / "back" / "1")
    assert contents(back) == contents(folder)
    place = storage.local_path("x/1")
    assert place is None or contents(place) == contents(folder)


def test_upload_leaves_out_hidden_files_and_those_named(storage: Storage, folder: Path):
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"x")
    storage.upload(folder, "x", without=["empty"])
    assert storage.list("") == ["x/a.bin", "x/deep/er/b.json"]


def test_upload_refuses_a_prefix_with_something_beneath(storage: Storage, folder: Path):
    storage.write("x/other", b"mine")
    with pytest.raises(AlreadyExists):
        storage.upload(folder, "x")
    assert storage.list("") == ["x/other"]


def test_upload_refuses_folders_without_files(storage: Storage, tmp_path: Path):
    (tmp_path / "hollow" / "deep").mkdir(parents=True)
    for folder in ("hollow", "nowhere"):
        with pytest.raises(StorageError, match=folder):
            storage.upload(tmp_path / folder, "x")
    assert storage.children("") == []


def test_download_refuses_a_folder_with_something_in_it(
    storage: Storage, folder: Path, tmp_path: Path
):
    storage.upload(folder, "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".hidden").write_bytes(b"work")
    with pytest.raises(AlreadyExists):
        storage.download("x", tmp_path / "mine")
    assert (tmp_path / "mine" / ".hidden").read_bytes() == b"work"
    with pytest.raises(NotFound, match="nothing beneath y"):
        storage.download("y", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".x", "a/.b", "a\\b", "a\0b"]
)
def test_keys_that_could_lead_elsewhere_are_refused(
    storage: Storage, folder: Path, tmp_path: Path, key: str
):
    before = contents(tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: storage.read(key),
        lambda: storage.exists(key),
        lambda: storage.create(key, b""),
        lambda: storage.replace(key, b"", "etag"),
        lambda: storage.write(key, b""),
        lambda: storage.delete(key),
        lambda: storage.upload(folder, key),
        lambda: storage.download(key, tmp_path / "new"),
        lambda: storage.local_path(key),
    ]
    if key:
        attempts += [lambda: storage.list(key), lambda: storage.children(key)]
    for attempt in attempts:
        with pytest.raises(StorageError, match="is no key"):
            attempt()
    assert contents(tmp_path) == before


def test_of_many_creators_one_wins(storage: Storage):
    outcomes = together(16, lambda worker: storage.create("claim", b"%d" % worker))
    winners = [worker for worker, error in enumerate(outcomes) if error is None]
    assert len(winners) == 1
    assert all(isinstance(error, AlreadyExists) for error in outcomes if error)
    assert storage.read("claim")[0] == b"%d" % winners[0]


def test_no_increment_is_lost_between_processes(storage: Storage):
    storage.create("count", b"0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=increment, args=(storage, "count", 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert storage.read("count")[0] == b"100"


def test_readers_never_see_half_an_object_or_half_a_folder(
    storage: Storage, folder: Path, tmp_path: Path
):
    """A folder counts from its marker on, without which S3 could not show it all at once."""
    (folder / "big").write_bytes(b"b" * 2_000_000)
    (folder / "marker").write_bytes(b"m")
    whole, done = contents(folder), threading.Event()
    torn: list[object] = []

    def watch() -> None:
        while not done.is_set():
            for name in storage.children("x"):
                if storage.exists(f"x/{name}/marker"):
                    keys = storage.list(f"x/{name}")
                    if len(keys) != len(whole):
                        torn.append(keys)
            if storage.exists("object"):
                data = storage.read("object")[0]
                if len(data) != 1_000_000 or len(set(data)) != 1:
                    torn.append(len(data))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(10):
        storage.write("object", bytes([turn]) * 1_000_000)
        storage.upload(folder, f"x/{turn}", without=["marker"])
        storage.create(f"x/{turn}/marker", b"m")
    done.set()
    watcher.join()
    assert torn == []
    assert contents(storage.download("x/9", tmp_path / "copy")) == whole


def increment(storage: Storage, key: str, times: int) -> None:
    while times:
        data, etag = storage.read(key)
        try:
            storage.replace(key, b"%d" % (int(data) + 1), etag)
            times -= 1
        except Changed:
            pass


def together(count: int, work: Callable[[int], object]) -> list[Exception | None]:
    """What `work` raised in each of `count` threads that start at the same moment."""
    barrier, outcomes = threading.Barrier(count), [None] * count

    def run(worker: int) -> None:
        barrier.wait()
        try:
            work(worker)
        except Exception as error:
            outcomes[worker] = error

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_one_may_write_what_others_delete_at_the_same_time(storage: Storage):
    on_disk = storage.local_path("a") is not None
    rounds = range(200 if on_disk else 5)

    def deleting() -> None:
        for _ in rounds:
            storage.delete("a/b")

    threads = [threading.Thread(target=deleting) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in rounds:
        storage.write("a/b", b"x")
    for thread in threads:
        thread.join()
    storage.write("a/b", b"last")
    assert storage.read("a/b")[0] == b"last"
    storage.delete("a/b")
    assert storage.list("a") == []
