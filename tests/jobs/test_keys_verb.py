"""`genimg keys`: the key alone goes to stdout, once; the file says what each may do."""

import json
import shlex
from pathlib import Path

import pytest

from cluster import keys


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENIMG_KEYS_FILE", raising=False)


def test_the_life_of_a_key(command, monkeypatch: pytest.MonkeyPatch):
    may = "--model figures --model denoiser@production --requests 60 --megapixels 1.5 --days 30"
    made = command(f"keys add alice {may}")
    assert made.code == 0
    (text,) = made.lines
    (key,) = keys.KeyFile("keys.json").read()
    assert keys.find({key.id: key}, text) == key
    assert key.models == ("figures", "denoiser@production")
    assert (key.requests_per_minute, key.megapixels_per_minute) == (60, 1.5)
    assert (key.expires - key.created).days in (29, 30)
    assert text not in made.err
    command("keys add bob --days 0")
    listed = command("keys list").out
    for part in ("alice", f"genimg_{key.id}_", "figures, denoiser@production", "60", "1.5"):
        assert part in listed
    assert "which is past" in listed
    assert text not in listed
    assert key.sha256 not in listed
    monkeypatch.setenv("COLUMNS", "80")
    assert f"genimg_{key.id}_" in command("keys list").out  # on a line, as it is looked for
    assert command("keys revoke alice").code == 0
    assert [each["name"] for each in json.loads(Path("keys.json").read_text())["keys"]] == ["bob"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("keys list", ["there is no keys.json in"]),
        ("keys revoke alice", ["keys.json has no key 'alice'; it has none"]),
        ("keys add 'a b'", ["name: "]),
        ("keys add a --requests 0", ["--requests 0: ", "greater than or equal to 1"]),
        ("keys add a --keys odd.json", ["odd.json: not keys: "]),
        ("keys add a --keys ftp://x/y", ["ftp:// is not supported"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command, line, parts):
    Path("odd.json").write_text("{")
    refused = command(line)
    assert refused.code == 2
    assert refused.out == ""
    (told,) = refused.err.splitlines()
    for part in parts:
        assert part in told


def test_the_file_may_be_named_by_the_environment(command, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GENIMG_KEYS_FILE", str(tmp_path / "others" / "some.json"))
    command(shlex.join(["keys", "add", "alice"]))
    assert (tmp_path / "others" / "some.json").exists()
    assert "alice" in command("keys list").out
