"""Bad input: each mistake is one line and exit code 2, before Ray starts or a file is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genimg import images

DCGAN = "train dcgan data.holdout=16"
DENOISE = "denoise -m ffdnet photos/0.png -o out.png"
CLASSIFIER = "train classifier data.holdout=2"
RUN = "runs/dcgan/checkpoints/000000000064"

# (command line, what the line must say). All run in the folder that `place` makes.
WRONG = [
    # recipes and their keys
    ("recipes dcgna", "unknown recipe 'dcgna'", "did you mean 'dcgan'?"),
    ("recipes dcgan train.lr=-1", "train.lr=-1", "greater than 0"),
    ("recipes dcgan los.r1", "no key begins with 'los.r1'", "did you mean 'loss.r1'?"),
    ("recipes dcgan --show-augmentation out.xyz", "cannot write images as '.xyz'", ".png"),
    ("recipes dcgan --show-augmentation out.png --data photo", "photo: no such file or folder"),
    ("serve --model dcgan --port 99999", "--port 99999", "give one below 65536"),
    ("train dcgna", "unknown recipe 'dcgna'", "did you mean 'dcgan'?"),
    ("train zzz", "unknown recipe 'zzz'", "known: adain, biggan-small, classifier"),
    ("train dcgan train.batchsize=8", "'train.batchsize'", "did you mean 'train.batch_size'?"),
    ("train dcgan recipe=ffdnet", "unknown key 'recipe'"),
    ("train dcgan batch_size", "'batch_size' is not of the form key=value"),
    ("train dcgan train.lr=[", "train.lr='['", "not a YAML value"),
    ("train dcgan train.lr=fast", "train.lr='fast'", "valid number"),
    ("train dcgan train.lr=-1", "train.lr=-1", "greater than 0"),
    ("train dcgan train.batch_size=0", "train.batch_size=0", "greater than or equal to 1"),
    ("train dcgan train.images=1.5", "train.images=1.5", "valid integer"),
    ("train dcgan data.fit=stretch", "data.fit='stretch'", "'resize', 'pad' or 'crop'"),
    ("train dcgan data.channels=2", "data.channels=2", "1 or 3"),
    ("train dcgan data.size=48", "data.size=48", "dcgan takes 16, 32, 64, 128 or 256"),
    ("train ffdnet data.size=50", "data.size=50", "multiple of 4"),
    ("train ffdnet data.size=8 data.fit=resize", "data.size=8", "ffdnet takes 12 or more"),
    ("train dcgan data.holdout=1", "data.holdout=1", "at least 16 held-out images"),
    ("train ffdnet evaluation.sigmas=25", "evaluation.sigmas=25", "give a list, as [25]"),
    # sweeps
    ("tune dcgna 'train.lr=uniform(0.1,0.2)'", "unknown recipe 'dcgna'", "did you mean 'dcgan'?"),
    ("tune dcgan", "nothing varies", "give at least one range"),
    ("tune dcgan 'train.rl=uniform(0.1,0.2)'", "unknown key 'train.rl'", "'train.lr'"),
    ("tune dcgan 'train.lr=uniform(0.2,0.1)'", "the range is empty"),
    ("tune dcgan 'train.lr=uniform(-1,1)'", "train.lr=-1", "greater than 0"),
    ("tune dcgan 'data.holdout=choice(100,200)'", "data.holdout may not vary", "for all trials"),
    ("tune dcgan 'train.lr=uniform(0.1,0.2)' --searcher opt", "--searcher 'opt'", "'optuna'"),
    ("tune dcgan 'train.lr=uniform(0.1,0.2)' --scheduler pbt", "--scheduler 'pbt'", "asha, none"),
    ("tune dcgan 'train.lr=uniform(0.1,0.2)' --data photo", "photo: no such file or folder"),
    ("tune dcgan 'train.lr=uniform(0.1,0.2)' --run a/b", "--run 'a/b': use letters"),
    ("tune dcgan 'train.lr=uniform(0.1,0.2)' --register a/b", "model 'a/b'"),
    # data
    (f"{DCGAN} --data photo", "photo: no such file or folder", "did you mean 'photos'?"),
    (f"{DCGAN} --data scene", "scene: no such file or folder", "did you mean 'scenes'?"),
    (f"{DCGAN} --data no/where", "no/where: no such file or folder", "nor is there a folder"),
    (f"{DCGAN} --data empty", "empty: no images in it", ".png"),
    (f"{DCGAN} --data notes.txt", "notes.txt: not a form that is known", ".zip"),
    (f"{CLASSIFIER} --data photos", "photos: has image, but", "one folder a class"),
    (f"{CLASSIFIER} --data labelled model.classes=[x]", "model.classes=['x']", "['cat', 'dog']"),
    ("train ffdnet data.holdout=5 --data photos", "only 5 images in", "as data.holdout=1"),
    ("train dcgan --data photos", "only 5 images in", "give more than 16, of which 16"),
    # workers, runs and their storage
    ("train dcgan --workers two", "--workers 'two'", "MIN..MAX as in 2..8"),
    ("train dcgan --workers -1", "--workers '-1'", "give a number"),
    ("train dcgan --workers 8..2", "--workers 8..2", "MIN must be at least 1 and at most MAX"),
    ("train dcgan --workers 0..2", "--workers 0..2", "MIN must be at least 1 and at most MAX"),
    ("train dcgan train.batch_size=4 --workers 1..5", "train.batch_size=4", "at most 4 workers"),
    ("train dcgan --run a/b", "--run 'a/b'", "use letters, digits"),
    ("train dcgan --run ..", "--run '..'", "use letters, digits"),
    ("train dcgan --storage s3://never-made/runs", "there is no bucket 'never-made'"),
    ("train dcgan --storage s3:/bucket/runs", "'s3:/bucket/runs'", "give s3://BUCKET/PREFIX"),
    ("train dcgan --storage ftp://host/runs", "ftp:// is not supported", "give a folder or s3://"),
    ("train dcgan --storage notes.txt", "notes.txt is a file", "give a folder"),
    ("train dcgan --register a/b", "model 'a/b'"),
    ("train dcgan --run ffdnet --storage runs", "started with recipe=ffdnet, now recipe=dcgan"),
    ("train dcgan --run odd --storage runs", "runs/odd/recipe.json: ", "is not a recipe"),
    # which model
    ("sample dcgna", "there is no model 'dcgna'", "did you mean 'dcgan'?"),
    ("sample dcgan@4", "dcgan has no version 4", "1"),
    ("sample dcgan@bset", "dcgan has no alias 'bset'", "did you mean 'best'?"),
    ("sample dcgan@", "'dcgan@'", "NAME, NAME@ALIAS or NAME@7"),
    ("sample ffdnet@best", "ffdnet has no alias 'best'"),
    ("sample dcgan --registry elsewhere", "there is no model 'dcgan' in", "elsewhere"),
    ("sample dcgan --registry s3://never-made", "there is no bucket 'never-made'"),
    ("train dcgan --register a --registry s3://never-made", "there is no bucket 'never-made'"),
    ("train dcgan --data s3://never-made/set", "s3://never-made/set", "nothing is there"),
    ("sample photos", "photos: not a checkpoint folder", "manifest.json"),
    ("sample no/where", "no/where: not a checkpoint folder"),
    ("sample runs/new", "runs/new: not a checkpoint folder", "nor a run with one"),
    ("sample altered", "altered/weights.safetensors: altered since it was written"),
    ("sample truncated", "truncated/weights.safetensors: has 100 bytes where"),
    ("sample lacking", "lacking/recipe.json: missing from the checkpoint"),
    ("sample foreign", "foreign/notes.txt: not part of the checkpoint", "remove it"),
    ("sample newer", "newer/manifest.json: format 2", "reads format 1"),
    # sample
    ("sample ffdnet", "ffdnet models cannot sample", "they can: denoise"),
    ("sample dcgan -n 0", "-n '0'", "greater than or equal to 1"),
    ("sample dcgan --truncation nan", "--truncation 'nan': input should be a finite number"),
    ("sample dcgan --precision half", "--precision 'half'", "float32"),
    ("evaluate dcgan --precision bfloat", "--precision 'bfloat'", "did you mean 'bfloat16'?"),
    ("sample dcgan -o grid.gif", "grid.gif: .gif is not an image", ".png"),
    ("sample dcgan --columns 0", "--columns 0: at least 1"),
    ("sample dcgan -o notes.txt/grid.png", "notes.txt is not a folder"),
    ("sample dcgan -o README", "README is not a folder"),
    ("sample dcgan -o s3://bucket/grid.png", "-o: give a path on this machine"),
    # operations on files
    ("deblur photos/0.png -o out.png", "no model is given", "genimg deblur photos/0.png -m"),
    (
        "upscale photos/0.png -o out.png --scale 3",
        "none that enlarges by 3 (but by 2 and 4)",
        "-m MODEL",
    ),
    ("restore ffdnet photos/0.png -o out.png", "no model is given", "photos/0.png -m ffdnet"),
    ("restore photos/0.png -o out.png -m dcgan", "dcgan models cannot restore", "they can: sample"),
    ("denoise photos/0.png -m ffdnet", "-o is missing"),
    ("stylise photos -o out -m ffdnet", "--style is missing: the image whose style is taken"),
    ("stylise photos/0.png --style x.png -o out.png -m ffdnet", "--style x.png: no such file"),
    ("stylise photos --style x -o out -m ffdnet", "--style x: no such file or folder"),
    (
        "stylise photos/0.png --style photos/0.png -o out.png -m ffdnet",
        "ffdnet models cannot stylise",
    ),
    ("decode notes.txt -m dcgan", "notes.txt: no rows of numbers", "genimg encode"),
    ("sample dcgan --label cat", "--label 'cat': this dcgan takes no label"),
    ("denoise -m dcgan photos/0.png -o out.png", "dcgan models cannot denoise", "they can: sample"),
    ("denoise -m ffdnet photo.png -o out.png", "photo.png: no such file or folder"),
    ("denoise -m ffdnet notes.txt -o out.png", "notes.txt: not an image"),
    ("denoise -m ffdnet empty -o out", "empty: no images in it"),
    ("denoise -m ffdnet photos/0.png -o out.gif", "out.gif", ".png"),
    ("denoise -m ffdnet photos/0.png -o out.txt", "-o out.txt", "ends in one of", ".png"),
    ("denoise -m ffdnet photos -o out.png", "-o out.png: give a folder"),
    ("denoise -m ffdnet twins -o out", "twins/a.bmp and twins/a.png would both become out/a.png"),
    ("denoise -m ffdnet photos -o README", "README is not a folder"),
    ("denoise -m ffdnet photos -o s3://bucket/out", "there is no bucket 'bucket'"),
    ("denoise -m ffdnet photos/0.png -o README/out.png", "README is not a folder"),
    (
        "denoise -m ffdnet photos/0.png -o out.png --sigma -1",
        "--sigma '-1'",
        "greater than or equal to 0",
    ),
    (
        "denoise -m ffdnet photos/0.png -o out.png --sigma 300",
        "--sigma '300'",
        "less than or equal to 255",
    ),
    (
        "denoise -m ffdnet photos/0.png -o out.png --strength 2",
        "--strength '2'",
        "less than or equal to 1",
    ),
    (
        "denoise -m ffdnet photos/0.png -o out.png --tile big",
        "--tile 'big'",
        "'auto', 0 (off) or a number",
    ),
    (
        "denoise -m ffdnet photos/0.png -o out.png --tile -8",
        "--tile '-8'",
        "'auto', 0 (off) or a number",
    ),
    # evaluate
    ("evaluate dcgan --split tset", "--split 'tset'", "did you mean 'test'?"),
    ("evaluate dcgan --data photo", "photo: no such file or folder", "did you mean 'photos'?"),
    ("evaluate dcgan evaluation.sample=9", "did you mean 'evaluation.samples'?"),
    ("evaluate dcgan judge", "'judge' is not of the form", "genimg compare dcgan judge"),
    ("evaluate dcgan data.size=32", "data.size belongs to the trained model"),
    ("evaluate judge --data photos", "photos: has image, but", "one folder a class"),
    ("evaluate judge --data labelled", "model.classes=['disc'", "the data has ['cat', 'dog']"),
    ("evaluate dcgan --judge judge-8", "--judge judge-8 takes 3 x 8 x 8", "makes 3 x 16 x 16"),
    ("evaluate dcgan --judge ffdnet", "ffdnet models cannot classify", "they can: denoise"),
    ("evaluate ffdnet --judge judge", "ffdnet models cannot sample", "they can: denoise"),
    ("evaluate dcgan --judge judg", "there is no model 'judg'", "did you mean 'judge'?"),
    # compare
    ("compare dcgan dcgan --judge judge", "dcgan is given twice", "give different models"),
    ("compare dcgan ffdnet", "dcgan is no restorer"),
    ("compare dcgan ffdnet --judge judge", "--judge: only for generators"),
    ("compare dcgan judge --judge judge", "classifier models cannot sample"),
    ("compare dcgan", "--judge is missing"),
    ("compare dcgan --judge judge-8", "--judge judge-8 takes 3 x 8 x 8"),
    ("compare dcgan --judge judge --split tset", "--split 'tset'", "did you mean 'test'?"),
    ("compare dcgan --judge judge -o notes.txt", "-o: ", "not a folder that one can write to"),
    ("train dcgan evaluation.best=judge_kid", "a judge tells it; give evaluation.judge"),
    # models
    ("models show dcgna", "there is no model 'dcgna'", "did you mean 'dcgan'?"),
    (f"models register a/b {RUN}", "model 'a/b'"),
    ("models register new photos", "photos: not a genimg checkpoint", "manifest.json"),
    ("models register new altered", "altered/weights.safetensors: altered"),
    ("models promote dcgan best --gate swd<=0", "swd<=0"),
    ("models promote dcgan best --gate swd", "swd"),
    ("models promote dcgan best --better swd", "--better 'swd'", "METRIC:min or METRIC:max"),
    ("models promote dcgan 7", "alias '7'", "a number means a version"),
    ("models rollback dcgan production", "dcgan has no alias 'production'"),
    ("models rm dcgan", "say which version, as in dcgan@1"),
    ("models rm dcgan@1", "in use as dcgan@best"),
    ("models verify dcgan@4", "dcgan has no version 4"),
]


@pytest.fixture(scope="module")
def place(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, images, and things that are not what they should be."""
    from cluster.places import open_storage
    from cluster.promotion import promote
    from cluster.registry import Registry

    here = tmp_path_factory.mktemp("place")
    for part in ("runs", "registry"):
        shutil.copytree(models / part, here / part)
    promote(Registry(open_storage(str(here / "registry"))), "dcgan", "best")
    (here / "runs/new").mkdir()
    (here / "runs/odd").mkdir()
    (here / "runs/odd/recipe.json").write_text("[]")

    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    names = [f"{folder}/{i}.png" for folder in ("photos", "labelled/cat") for i in range(5)]
    for name in [*names, "labelled/dog/0.png", "twins/a.png", "twins/a.bmp"]:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        images.save(pixels, here / name)
    (here / "empty").mkdir()
    for name in ("notes.txt", "README"):
        (here / name).write_text("not an image, nor a folder")

    for name in ("altered", "truncated", "lacking", "foreign", "newer"):
        shutil.copytree(here / RUN, here / name)
    weights = (here / RUN / "weights.safetensors").read_bytes()
    (here / "altered/weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    (here / "truncated/weights.safetensors").write_bytes(weights[:100])
    (here / "lacking/recipe.json").unlink()
    (here / "foreign/notes.txt").write_text("mine")
    manifest = json.loads((here / "newer/manifest.json").read_text())
    (here / "newer/manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    return here


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that would start or join a cluster fails the test."""

    def connect() -> None:
        raise AssertionError("Ray was about to be started")

    monkeypatch.setattr("cluster.local.connect", connect)


@pytest.mark.parametrize(("arguments", "expected"), [(a, e) for a, *e in WRONG], ids=lambda v: v)
def test_bad_input_is_one_line_that_says_what_to_do(
    arguments: str, expected: list[str], s3, place: Path, command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(place)
    before = listing(place)
    ended = command(arguments)
    assert ended.code == 2
    assert ended.out == ""
    [line] = ended.err.splitlines()
    assert line.startswith("error: ")
    for part in expected:
        assert part in line
    assert listing(place) == before


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder beneath, with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}
