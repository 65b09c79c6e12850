"""The verbs with everything in S3: shards, runs, registry; and no secret in any of it."""

import os
import shlex
import shutil
from pathlib import Path

import boto3
import numpy as np
import pytest
import torch

from cluster.places import open_storage
from genimg import images

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow  # other tests prepare, train and make images in S3 one by one
def test_from_shards_to_samples_in_s3(ray_cluster, command, tiny, bucket, tmp_path: Path):
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(80):
        image = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        images.save(image, tmp_path / "photos" / f"{number:02d}.png")
    prepare = f"prepare {tmp_path / 'photos'} {bucket}/set --size 16 --shard-rows 30"
    assert command(prepare).code == 0
    again = command(prepare)
    assert "3 of 3 shards are there already" in again.err
    assert "holds shards of another source" in command(f"{prepare} --format jpeg").err

    train = f"train dcgan {shlex.join(tiny['dcgan'])} train.log_every=32 train.checkpoint_every=32"
    train += f" --data {bucket}/set --storage {bucket}/runs --run first"
    train += f" --registry {bucket}/registry --register faces"
    trained = command(f"{train} train.images=64 --workers 2")
    assert trained.code == 0, trained.err
    assert trained.lines[0] == f"{bucket}/runs/first/checkpoints/{64:012d}"
    assert trained.lines[-1] == "faces@1"
    resumed = command(f"{train} train.images=96 --workers 0")
    assert resumed.code == 0, resumed.err
    assert resumed.lines[-1] == "faces@2"

    storage = open_storage(bucket)
    names = storage.list("runs/first")
    assert "runs/first/recipe.json" in names
    assert any(name.startswith("runs/first/tensorboard/events") for name in names)
    assert not any("ray" in name.split("/") for name in names)

    grids = []
    for attempt in range(2):  # downloaded, then from the cache
        grid = tmp_path / f"grid-{attempt}.png"
        sampled = command(f"sample faces@2 -n 4 --seed 0 -o {grid} --registry {bucket}/registry")
        assert sampled.code == 0, sampled.err
        grids.append(grid.read_bytes())
    assert grids[0] == grids[1]
    checkpoint = resumed.lines[0]
    assert command(f"models register copy {checkpoint} --registry {tmp_path / 'here'}").code == 0
    assert command(f"sample {checkpoint} -n 4 --seed 0 -o {tmp_path / 'direct.png'}").code == 0
    assert (tmp_path / "direct.png").read_bytes() == grids[0]
    assert "not a checkpoint folder" in command(f"sample {bucket}/runs/first").err
    for name in storage.list(""):
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in storage.read(name)[0]


def test_a_run_in_s3_resumes_in_this_process_bit_for_bit(command, tiny, bucket):
    train = f"train dcgan {shlex.join(tiny['dcgan'])} --workers 0 --storage {bucket}/runs"
    for images_seen, name in ((32, "twice"), (64, "twice"), (64, "once")):
        done = command(f"{train} train.images={images_seen} train.checkpoint_every=32 --run {name}")
        assert done.code == 0, done.err
    storage = open_storage(f"{bucket}/runs")
    weights = [
        storage.read(f"{name}/checkpoints/{64:012d}/training.safetensors")[0]
        for name in ("once", "twice")
    ]
    assert weights[0] == weights[1]


def test_half_a_checkpoint_in_s3_is_no_checkpoint_and_is_written_over(command, tiny, bucket):
    train = f"train dcgan {shlex.join(tiny['dcgan'])} --workers 0 --storage {bucket}/runs --run r"
    assert command(f"{train} train.images=32").code == 0
    storage = open_storage(bucket)
    half = f"runs/r/checkpoints/{64:012d}"
    storage.write(f"{half}/weights.safetensors", b"half")  # as if killed while uploading
    assert command(f"{train} train.images=64").code == 0
    assert storage.exists(f"{half}/manifest.json")
    assert storage.read(f"{half}/weights.safetensors")[0] != b"half"


def test_the_bucket_is_asked_for_before_anything_is_trained(command, s3):
    for option in ("--storage s3://never-made/x", "--register a --registry s3://never-made/x"):
        refused = command(f"train dcgan {option}")
        assert refused.code == 2
        assert "there is no bucket 'never-made'" in refused.err


def test_a_slash_at_the_end_of_an_address_changes_nothing(command, tiny, bucket):
    train = f"train dcgan {shlex.join(tiny['dcgan'])} train.images=32 --workers 0 --run r"
    done = command(f"{train} --storage {bucket}/runs/")
    assert done.code == 0, done.err
    assert done.lines[0] == f"{bucket}/runs/r/checkpoints/{32:012d}"


def test_what_others_left_in_a_bucket_disturbs_nothing(bucket, tmp_path):
    storage = open_storage(bucket)
    storage.write("a/b", b"ours")
    name = bucket.removeprefix("s3://")
    for key in ("a/.DS_Store", "a/", "a/c/"):
        boto3.client("s3").put_object(Bucket=name, Key=key, Body=b"")
    assert storage.list("a") == ["a/b"]
    storage.download("a", tmp_path / "copy")
    storage.delete("a")
    assert boto3.client("s3").list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_a_plan_is_the_same_on_a_machine_without_the_copy(bucket, tmp_path):
    from jobs.shards.plan import make_plan

    np.savez(tmp_path / "set.npz", images=np.zeros((4, 8, 8), np.uint8))
    boto3.client("s3").upload_file(
        str(tmp_path / "set.npz"), bucket.removeprefix("s3://"), "set.npz"
    )
    options = {"size": None, "fit": "pad", "format": "keep", "quality": None, "shard_rows": 10}
    plans = []
    for _ in range(2):
        plans.append(make_plan(f"{bucket}/set.npz", split="all", **options)[0].text())
        shutil.rmtree(os.environ["GENIMG_CACHE"])
    assert plans[0] == plans[1]


def test_a_folder_in_s3_becomes_shards_without_a_copy_of_it(bucket, tmp_path):
    from genimg.data.parquet import Shards
    from genimg.data.parts import Part
    from jobs.shards.folder import claim, outcome_of
    from jobs.shards.plan import make_plan
    from jobs.shards.writer import Sharder, part_of

    name = bucket.removeprefix("s3://")
    for number in range(7):
        picture = images.encode(np.full((8, 8, 3), number, np.uint8))
        key = f"pets/{'ab'[number % 2]}/{number}.png"
        boto3.client("s3").put_object(Bucket=name, Key=key, Body=picture)
    options = {"size": None, "fit": "pad", "format": "keep", "quality": None, "shard_rows": 3}
    plan, sources = make_plan(f"{bucket}/pets", split="all", **options)
    claim(f"{bucket}/out", plan, overwrite=False)
    for shard in plan.shards(f"{bucket}/out"):
        assert outcome_of(shard) is None
        part = part_of(plan, sources, shard)
        outcome = Sharder(plan, 0).write(shard, Part.unpacked(part.packed()))
        assert (outcome.complete, outcome.broken) == (True, [])
        assert outcome_of(shard) == outcome
    columns = ("image", "label")
    shards = Shards(f"{bucket}/out", columns, channels=3, size=8, fit="pad", tolerate_broken=0)
    pixels, labels = shards.fetch(np.arange(7), torch.zeros(7, dtype=torch.int64)).values()
    numbers = pixels[:, 0, 0, 0].tolist()
    assert sorted(numbers) == list(range(7))
    assert labels.tolist() == [n % 2 for n in numbers]
    assert not (tmp_path / "cache").exists()

    picture = images.encode(np.full((8, 8, 3), 99, np.uint8))
    boto3.client("s3").put_object(Bucket=name, Key="pets/a/0.png", Body=picture)
    assert make_plan(f"{bucket}/pets", split="all", **options)[0].content != plan.content
