"""A set that has no room in memory is refused before an image is decoded, with the way out."""

import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest

from genimg import images
from genimg.data.loading import load_images
from genimg.data.machine import Memory, this_machines
from genimg.data.opening import open_dataset, told_by
from genimg.data.room import HEADROOM, SAMPLE, bytes_in_memory
from genimg.data.sources import open_source
from genimg.errors import InputError
from genimg.recipe import Data

GB = 10**9
IMAGE = ("image",)


def write(folder: Path, count: int, sides: tuple[int, int] = (24, 40)) -> Path:
    generator = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        shape = (*generator.integers(*sides, 2), 3)
        images.save(generator.integers(0, 256, shape, np.uint8), folder / f"{i}.png")
    return folder


def data(source: Path, **keys) -> Data:
    return Data(source=str(source), holdout=1, **({"size": 16} | keys))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
def test_what_a_set_takes_is_told_from_its_headers(tmp_path, fit, channels):
    asked = data(write(tmp_path / "set", 30), fit=fit, channels=channels)
    source = open_source(asked.source)
    loaded, _ = load_images(source, channels=channels, size=16, fit=fit)
    assert bytes_in_memory(asked, IMAGE, source) == loaded.nbytes


def test_a_sample_of_headers_is_near_and_seldom_below(tmp_path):
    asked = data(write(tmp_path / "set", 3 * SAMPLE, (16, 60)), fit="crop")
    source = open_source(asked.source)
    loaded, _ = load_images(source, channels=3, size=16, fit="crop")
    assert loaded.nbytes <= bytes_in_memory(asked, IMAGE, source) <= 1.2 * loaded.nbytes


def test_only_headers_are_read_and_broken_ones_are_left_to_others(tmp_path):
    folder = write(tmp_path / "set", 4)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    (folder / "1.png").write_bytes(b"junk")
    assert bytes_in_memory(data(folder, fit="crop"), IMAGE, open_source(str(folder))) > 0
    for file in folder.iterdir():
        file.write_bytes(b"junk")
    assert bytes_in_memory(data(folder, fit="crop"), IMAGE, open_source(str(folder))) == 0


def test_what_a_source_holds_itself_counts(tmp_path):
    pictures = np.zeros((50, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=pictures)
    asked = data(tmp_path / "set.npz")
    expected = pictures.nbytes + 50 * 3 * 16 * 16
    assert bytes_in_memory(asked, IMAGE, open_source(asked.source)) == expected


def test_a_set_that_is_too_large_is_refused_with_numbers_and_the_command(tmp_path):
    folder = write(tmp_path / "my photos", 10)
    needed = 10 * 3 * 16 * 16
    fits, short = int(needed / HEADROOM) + 2, int(needed / HEADROOM) - 2
    for call in (told_by, open_dataset):
        call(data(folder), IMAGE, memory=Memory(GB, fits))
        with pytest.raises(InputError, match=r"10 images take 7\.68e-06 GB in memory") as caught:
            call(data(folder), IMAGE, memory=Memory(GB, short))
        text = str(caught.value)
        command = text.partition("instead: ")[2].partition(", then")[0]
        assert shlex.split(command) == [
            "genimg", "prepare", str(folder), f"{folder}-shards", "--size", "16",
        ]  # fmt: skip
        assert text.endswith(f"then --data '{folder}-shards'")


@pytest.mark.parametrize(
    ("fit", "options"),
    [("resize", ["--size", "16"]), ("pad", ["--size", "16", "--fit", "pad"]), ("crop", [])],
)
def test_the_command_keeps_what_the_fit_needs(tmp_path, fit, options):
    folder = write(tmp_path / "set", 3)
    with pytest.raises(InputError) as caught:
        told_by(data(folder, fit=fit), IMAGE, memory=Memory(GB, 1))
    command = str(caught.value).partition("instead: ")[2].partition(", then")[0]
    assert command.split()[4:] == options


def test_every_worker_of_a_machine_holds_a_copy(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", 10)
    needed = 10 * 3 * 16 * 16
    for_two = Memory(GB, int(2.1 * needed / HEADROOM))
    told_by(data(folder), IMAGE, copies=2, memory=for_two)
    with pytest.raises(InputError, match="in the memory of each of 3 workers here"):
        told_by(data(folder), IMAGE, copies=3, memory=for_two)
    told_by(data(folder), IMAGE, copies=0, memory=Memory(1, 1))  # they are on other machines

    # A worker compares the whole with the total, as others may have loaded theirs already.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    last = Memory(int(3.1 * needed / HEADROOM), int(1.1 * needed / HEADROOM))
    open_dataset(data(folder), IMAGE, memory=last)
    with pytest.raises(InputError, match="each of 3 workers here"):
        open_dataset(data(folder), IMAGE, memory=Memory(int(2.9 * needed / HEADROOM), GB))


def test_archives_are_measured_too(tmp_path):
    folder = write(tmp_path / "set", 5)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    with pytest.raises(InputError, match="genimg prepare"):
        told_by(data(tmp_path / "set.zip", fit="crop"), IMAGE, memory=Memory(GB, 1))


def fake(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


MEMINFO = "MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  600000 kB\n"


def test_memory_is_the_machines_or_what_its_container_may_have(tmp_path):
    assert this_machines(tmp_path) is None  # another system: nothing is refused
    fake(tmp_path, {"proc/meminfo": MEMINFO})
    assert this_machines(tmp_path) == Memory(1_024_000_000, 614_400_000)

    group = "sys/fs/cgroup/a/b"
    fake(tmp_path, {
        "proc/self/cgroup": "0::/a/b\n",
        f"{group}/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "500000000\n",
        "sys/fs/cgroup/a/memory.current": "300000000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 100000000\n",
    })  # fmt: skip
    assert this_machines(tmp_path) == Memory(500_000_000, 300_000_000)


def test_control_groups_of_version_1_are_understood(tmp_path):
    group = "sys/fs/cgroup/memory/pod"
    fake(tmp_path, {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "5:devices:/pod\n4:memory:/pod\n0::/\n",
        f"{group}/memory.limit_in_bytes": "400000000\n",
        f"{group}/memory.usage_in_bytes": "150000000\n",
        f"{group}/memory.stat": "cache 1\ntotal_inactive_file 50000000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
    })  # fmt: skip
    assert this_machines(tmp_path) == Memory(400_000_000, 300_000_000)


def test_this_machine_has_memory():
    memory = this_machines()
    assert memory is None or 0 < memory.available <= memory.total
