"""Keys: made once, kept as hashes in one file, found in constant time, and taken back."""

import hmac
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster import keys
from cluster.keys import Key, KeyFile, KeysError
from cluster.storage import NotFound


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def made(file: str, name: str, **may: object) -> str:
    key, text = keys.new(name, **may)
    KeyFile(file).add(key)
    return text


def found(file: str, text: str) -> Key | None:
    return keys.find({key.id: key for key in KeyFile(file).read()}, text)


def test_a_key_is_found_by_its_text_until_it_is_revoked(place: str):
    kept = KeyFile(f"{place}/keys.json")
    with pytest.raises(NotFound):
        kept.read()
    (alice, text), (bob, _) = keys.new("alice", models=("figures",)), keys.new("bob")
    kept.add(alice)
    kept.add(bob)
    assert kept.read() == (alice, bob)
    known = {key.id: key for key in kept.read()}
    assert keys.find(known, text) == alice
    assert not alice.expired
    kept.revoke("alice")
    assert kept.read() == (bob,)
    with pytest.raises(KeysError, match="no key 'alice'; it has bob"):
        kept.revoke("alice")
    with pytest.raises(KeysError, match="has a key 'bob' already; revoke it, or name another"):
        kept.add(bob)


def test_the_file_has_no_secret_and_only_its_owner_reads_it(tmp_path: Path):
    file = tmp_path / "keys.json"
    mask = os.umask(0o022)
    texts = [made(str(file), name) for name in ("alice", "bob")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
    content = file.read_text()
    for text in texts:
        _, id, secret = text.split("_", 2)
        assert len(secret) >= 43  # 256 bits in base64
        assert id in content
        assert secret not in content
    assert len({text.split("_", 2)[2] for text in texts}) == 2
    file.chmod(0o644)  # as an editor may leave it
    KeyFile(str(file)).revoke("alice")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.umask(mask) == 0o022, "that of the process is as it was"


def test_nothing_but_the_whole_text_is_the_key(file: str):
    alice, bob = made(file, "alice"), made(file, "bob")
    known = {key.id: key for key in KeyFile(file).read()}
    _, id, secret = alice.split("_", 2)
    other = bob.split("_", 2)[2]
    for wrong in (
        "", "_", "__", "genimg", secret, f"{id}_{secret}", f"genimg_{id}_", f"genimg_{id}_{other}",
        alice[:-1], f"{alice}x", alice.upper(), f"sk_{id}_{secret}", f"genimg_00000000_{secret}",
        "genimg_\udcff_\udcff", f" {alice}",
    ):  # fmt: skip
        assert keys.find(known, wrong) is None, wrong
    assert keys.find(known, alice).name == "alice"


def test_as_much_is_compared_whether_or_not_there_is_such_a_key(file: str, monkeypatch):
    alice = made(file, "alice")
    compared: list[tuple[int, int]] = []

    def watched(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", watched)
    for text in (alice, f"{alice[:-1]}x", "genimg_00000000_x", ""):
        found(file, text)
    assert compared == [(64, 64)] * 4


def test_keys_that_are_made_at_once_are_all_kept(file: str):
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda i: made(file, f"key-{i}"), range(12)))
    assert {found(file, text).name for text in texts} == {f"key-{i}" for i in range(12)}


def test_no_two_keys_begin_alike(file: str):
    alice = keys.new("alice")[0]
    KeyFile(file).add(alice)
    with pytest.raises(KeysError, match="a key that begins alike; make another"):
        KeyFile(file).add(keys.new("bob")[0].model_copy(update={"id": alice.id}))
    assert KeyFile(file).read() == (alice,)


class Compared(str):
    """A text that counts how often it is compared with others."""

    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_of_thousands_of_keys_each_is_not_compared_with_each():
    one, many = keys.new("alice")[0], 1000
    each = [
        one.model_copy(update={"name": Compared(f"key-{i}"), "id": Compared(f"{i:08x}")})
        for i in range(many)
    ]
    keys._File.model_construct(keys=tuple(each)).each_once()
    assert Compared.count < 10 * many


def test_an_expired_key_says_so(file: str):
    now = datetime.now(UTC)
    assert found(file, made(file, "old", expires=now - timedelta(seconds=1))).expired
    assert not found(file, made(file, "new", expires=now + timedelta(days=1))).expired


@pytest.mark.parametrize(
    ("name", "may", "reason"),
    [
        ("", {}, "name: "),
        ("a b", {}, "name: "),
        ("a", {"requests_per_minute": 0}, "requests_per_minute: "),
        ("a", {"megapixels_per_minute": -1}, "megapixels_per_minute: "),
    ],
)
def test_what_no_key_can_be_is_refused(name, may, reason):
    with pytest.raises(KeysError, match=reason):
        keys.new(name, **may)


def test_what_is_no_file_of_keys_is_refused_without_showing_hashes(tmp_path: Path):
    file = tmp_path / "keys.json"
    made(str(file), "alice")
    good = json.loads(file.read_text())["keys"][0]
    for content in (
        b"", b"{", b"\xff", b"[]", b'{"keys": 3}',
        json.dumps({"keys": [good, good]}).encode(),
        json.dumps({"keys": [good | {"sha256": good["sha256"] + "0"}]}).encode(),
        json.dumps({"keys": [good | {"may": "all"}]}).encode(),
    ):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(KeysError, match=r"keys\.json: not keys: ") as caught:
            KeyFile(str(file)).read()
        assert good["sha256"] not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("192.0.2.1", False), ("example", False),
    ],
)  # fmt: skip
def test_only_loopback_is_this_machine_alone(host, here):
    assert keys.is_loopback(host) == here
