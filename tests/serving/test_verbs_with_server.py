"""`--server URL`: what a verb writes is what it writes without, whatever befalls on the way."""

import datetime
import ipaddress
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from live_server import running
from photo_folders import files, printed, write_photos
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from troubled import HANG_UP, Troubled

from genimg import images, moving
from jobs.remote import server as remote
from jobs.remote.verbs import as_pages
from serving.app import create_app
from serving.backend import LocalBackend
from serving.settings import Settings

DENOISE = "denoise photos --sigma 25 -m denoiser"


@pytest.fixture(scope="module")
def app(trained: Path) -> Iterator[ASGIApp]:
    models = [{"ref": "figures@production"}, {"ref": "denoiser"}]
    settings = Settings.validated(
        {"registry": str(trained), "models": models, "limits": {"max_bytes": 2_000_000}}
    )
    backend = LocalBackend(settings)
    backend.load()
    yield create_app(backend, settings.limits)
    backend.close()


@pytest.fixture(scope="module")
def listening(app: ASGIApp) -> Iterator[tuple[Troubled, str]]:
    front = Troubled(app)
    with running(front) as url:
        yield front, url


@pytest.fixture
def front(listening: tuple[Troubled, str], monkeypatch: pytest.MonkeyPatch) -> Troubled:
    """Before the app, without trouble yet. --server is its URL."""
    front = listening[0]
    front.__init__(front.app)
    monkeypatch.delenv(remote.KEY, raising=False)
    return front


@pytest.fixture
def there(front: Troubled, listening: tuple[Troubled, str]) -> str:
    return f"--server {listening[1]}"


@pytest.fixture
def local(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The options of a verb without a server; the current folder has `photos`, 20 images."""
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return f"--registry {trained}"


def pictures(folder: str) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if name != "operation.json"}


@pytest.mark.parametrize("more", ["", "--format jpeg --save-quality 50", "--format same"])
def test_a_folder_becomes_the_same_files(command: Command, there, local, more):
    images.save(np.zeros((9, 8, 3), np.uint8), "photos/a.webp")
    assert printed(command(f"{DENOISE} -o here {local} {more}")) == "here\n"
    assert printed(command(f"{DENOISE} -o there {there} {more}")) == "there\n"
    assert pictures("there") == pictures("here")
    assert len(pictures("there")) == 21


@pytest.mark.parametrize("output", ["a.jpg --save-quality 30", "a.tif", "deeper/a.webp"])
def test_an_image_becomes_the_same_file_over_one_connection(
    command: Command, front: Troubled, there, local, output
):
    name = output.split()[0]
    printed(command(f"denoise photos/01.png -o here/{output} {local} -m denoiser"))
    assert printed(command(f"denoise photos/01.png -o {output} {there} -m denoiser")) == f"{name}\n"
    assert Path(name).read_bytes() == Path("here", name).read_bytes()
    assert len(front.clients) == 1


def test_images_that_many_requests_draw_are_of_the_seeds_that_one_would_have(
    command: Command, front: Troubled, there, local
):
    drawn = command(f"sample figures@production -n 40 -o there.png --columns 7 {there}")
    assert len(front.posts) == 3
    (seed,) = re.findall(r"drawn at random: --seed (\d+)", drawn.err)
    again = f"sample figures@production -n 40 --seed {seed} --columns 7 -o here.png {local}"
    assert "drawn at random" not in command(again).err
    assert Path("there.png").read_bytes() == Path("here.png").read_bytes()

    (one,) = re.findall(
        r"--seed (\d+)", command(f"sample figures@production -o one {there} --overwrite").err
    )
    assert list(pictures("one")) == [f"seed-{int(one):06d}.png"]
    printed(command(f"sample figures@production -o same.png --seed {one} {there}"))
    printed(command(f"sample figures@production -o local.png --seed {one} {local}"))
    assert Path("same.png").read_bytes() == Path("local.png").read_bytes()
    way = command(f"interpolate figures@production --frames 3 -o way.webp {there}")
    assert re.search(r"drawn at random: --seed \d+", way.err)


def test_drawn_shards_are_the_same(command: Command, there, local):
    for folder, more in (("here", local), ("there", there)):
        words = f"sample figures@production -n 40 --seed 7 --shard-rows 24 -o {folder} {more}"
        printed(command(words))
    assert pictures("there") == pictures("here")
    assert len(pictures("there")) == 2


def test_what_cannot_be_read_is_listed_and_alone_tried_again(
    command: Command, front: Troubled, there, local
):
    whole = Path("photos/02.png").read_bytes()
    Path("photos/02.png").write_bytes(whole[:60])
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3)).astype(np.uint8)
    images.save(noise, "photos/large.png")
    ended = command(f"{DENOISE} -o clean {there}")
    assert ended.code == 1
    assert "failed: photos/02.png: image: damaged or truncated" in ended.err
    assert "failed: photos/large.png: the body is larger than 2,000,000 bytes" in ended.err
    bad = {"02.png", "large.png"}
    assert pictures("clean").keys() == files("photos").keys() - bad | {"failures.jsonl"}
    assert len(front.posts) == 21
    Path("photos/02.png").write_bytes(whole)
    Path("photos/large.png").unlink()
    printed(command(f"{DENOISE} -o clean {there}"))
    assert len(front.posts) == 22
    assert pictures("clean").keys() == files("photos").keys()


def test_a_server_that_dies_midway_is_waited_for_and_then_gone_on_with(
    command: Command, front: Troubled, there, local, monkeypatch
):
    monkeypatch.setattr(remote, "PATIENCE", 0.3)
    front.trouble = lambda number: HANG_UP if number > 6 else None
    ended = command(f"{DENOISE} -o clean {there}")
    assert ended.code == 2
    assert "cannot be reached" in ended.err.splitlines()[-1]
    done = len(pictures("clean"))
    assert 0 < done <= 6
    front.__init__(front.app)
    ended = command(f"{DENOISE} -o clean {there}")
    assert f"{done} of 20 are done already" in ended.err
    assert ended.code == 0
    assert len(front.posts) == 20 - done
    printed(command(f"{DENOISE} -o whole {local}"))
    assert pictures("clean") == pictures("whole")
    assert "there are results of a job with" in command(f"{DENOISE} -o clean {local}").err


def test_a_server_that_has_no_room_is_asked_again_when_it_says(
    command: Command, front: Troubled, there, local, monkeypatch
):
    monkeypatch.setattr(remote, "UNTOLD", 0)
    busy = JSONResponse({"error": {"message": "full"}}, 429, {"Retry-After": "1"})
    gone = PlainTextResponse("no server", 503)
    front.trouble = {1: busy, 2: gone, 3: HANG_UP}.get
    began = time.monotonic()
    ended = command(f"denoise photos/01.png -o a.png -m denoiser {there}")
    assert ended.code == 0
    assert time.monotonic() - began >= 1
    assert len(front.posts) == 4
    first, second, third = (line for line in ended.err.splitlines() if "trying again" in line)
    assert "is busy (full)" in first
    assert "is busy (503 Service Unavailable)" in second
    assert "cannot be reached" in third


@pytest.mark.parametrize("status", [400, 413, 500, 504])
def test_other_answers_are_no_reason_to_ask_again(
    command: Command, front: Troubled, there, local, status
):
    body = {"error": {"message": "not [this] one", "param": None}}
    front.trouble = lambda number: JSONResponse(body, status)
    ended = command(f"denoise photos/01.png -o a.png -m denoiser {there}")
    assert (ended.code, len(front.posts)) == (2, 1)
    assert "not [this] one" in ended.err
    assert not Path("a.png").exists()


def test_another_version_does_not_go_on_with_a_job(command: Command, front, there, local):
    front.versions = {9: "2"}
    ended = command(f"{DENOISE} -o clean {there}")
    assert ended.code == 2
    assert "denoiser version 2 in " in ended.err
    assert "the job began with denoiser version 1 in " in ended.err
    ended = command(f"{DENOISE} -o clean {there}")
    assert "denoiser version 2 in " in ended.err
    front.versions = {}
    printed(command(f"{DENOISE} -o clean {there}"))


def test_what_is_wrong_is_told_before_anything_is_sent(command: Command, front, there, local):
    one = "denoise photos/01.png -o a.png -m denoiser"
    for words, told in (
        (f"denoise photos -o clean -m denoiser --workers 2 {there}", "--workers 2: with --server"),
        (f"{one} --precision float32 {there}", "--precision float32: with --server"),
        (f"{one} --registry models {there}", "--registry models: with --server"),
        (f"{one} --sigma 300 {there}", "--sigma '300'"),
        (f"{one} --save-quality 9 {there}", "png is lossless"),
        (f"denoise none.png -o a.png {there}", "none.png: no such file"),
        (f"{one} --server localhost:8000", "give a URL, as http://localhost:8000"),
        (f"{one} --server http://x:99999", "Port out of range"),
        (f"{one} --server http://a..b", "label empty or too long"),
        (f"{one} --server http://me:secret@localhost", "give a key as GENIMG_API_KEY"),
    ):
        ended = command(words)
        assert ended.code == 2, words
        assert told in ended.err, words
        assert "secret" not in ended.err
    assert not front.posts


def test_what_the_server_refuses_is_told_in_its_words(command: Command, front, there, local):
    for words, told in (
        ("denoise photos -o clean -m denoiser@9", "--model 'denoiser@9': no such model is served"),
        ("denoise photos -o clean -m figures", "it cannot denoise"),
        ("sample figures@production --label cat -o a.png", "takes no label"),
        ("sample figures@production -n 40 --label cat -o drawn", "takes no label"),
        ("classify photos -o a.json", "none of the served models can classify"),
    ):
        ended = command(f"{words} {there}")
        assert ended.code == 2, words
        assert told in ended.err.splitlines()[-1], words
    assert not list(Path().rglob("operation.json"))
    ended = command(f"denoise photos/01.png -o a.png {there}")
    assert re.search(r"model: denoiser version 1 of \S+; -m names another", ended.err)


def test_the_key_is_sent_and_a_wrong_one_told(
    command: Command, front: Troubled, there, local, monkeypatch
):
    monkeypatch.setenv(remote.KEY, "a-key")
    printed(command(f"denoise photos/01.png -o a.png -m denoiser {there}"))
    assert front.posts[0]["authorization"] == "Bearer a-key"
    body = {"error": {"message": "no such key", "code": "invalid_api_key"}}
    front.trouble = lambda number: JSONResponse(body, 401)
    ended = command(f"{DENOISE} -o clean {there}")
    assert "no such key (the key is read from GENIMG_API_KEY)" in ended.err
    assert "a-key" not in ended.err
    monkeypatch.setenv(remote.KEY, "clé")
    assert "GENIMG_API_KEY: no key has such" in command(f"{DENOISE} -o clean {there}").err


def test_who_is_no_genimg_server_is_told(command: Command, local, front):
    def other(answer: Response) -> ASGIApp:
        async def models(request):
            return answer

        return Starlette(routes=[Route("/v1/models", models)])

    vllm = {"object": "list", "data": [{"id": "llama", "owned_by": "vllm"}]}
    for answer, told in (
        (PlainTextResponse("hello"), "no genimg server answers there (GET /v1/models: 200 OK)"),
        (PlainTextResponse("no", 404), "no genimg server answers there"),
        (JSONResponse(vllm), "no genimg server answers there"),
        (RedirectResponse("https://elsewhere/v1/models"), "name https://elsewhere"),
    ):
        with running(other(answer)) as url:
            ended = command(f"{DENOISE} -o clean --server {url}")
        assert ended.code == 2
        assert told in ended.err
    began = time.monotonic()
    ended = command(f"{DENOISE} -o clean --server {url}")  # who has gone
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert f"--server {url} cannot be reached (" in ended.err
    assert time.monotonic() - began < 5
    assert not Path("clean").exists()


def test_a_certificate_of_nobody_we_know_is_told(
    command: Command, app: ASGIApp, local, front, tmp_path, monkeypatch
):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    with running(app, ssl_certfile=str(pem), ssl_keyfile=str(tmp_path / "key.pem")) as url:
        one = f"denoise photos/01.png -o a.png -m denoiser --server {url}"
        ended = command(one)
        assert ended.code == 2
        assert "its certificate is not trusted (" in ended.err
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        printed(command(one))


def test_frames_of_a_folder_are_sent_as_they_are():
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    frames[2] = frames[1]
    assert np.array_equal(moving.decode(as_pages(frames)), frames)
    assert np.array_equal(moving.decode(as_pages(frames[:1]), 3), frames[:1])


def test_no_pytorch_is_imported_for_it(there, local):
    code = (
        "import sys; from jobs.cli import main\ntry:\n    main()\n"
        "finally:\n    print([name for name in ('torch', 'ray', 'boto3') if name in sys.modules])"
    )
    words = f"sample figures@production -n 3 -o folder {there}".split()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["folder: 3 images", "[]"], done.stderr
