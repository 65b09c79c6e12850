"""A config file that changes while a server runs: what is published, and what is told."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.exceptions import RpcError

from genimg.errors import InputError
from jobs.server import reloading
from jobs.server.config_file import parse, read_tree
from jobs.server.reloading import Reloading
from serving.settings import Settings


class Running:
    """A server's config file, what its command has said, and what it has published."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.published: dict[str, str] = {}
        self.said: list[str] = []
        monkeypatch.setattr(reloading, "publish", self.published.__setitem__)
        monkeypatch.setattr(reloading, "published", self.published.get)
        monkeypatch.setattr(reloading, "say", self.said.append)
        self.write()
        file, settings = self.read()
        settings = settings.model_copy(update={"changes": "here"})
        self.reloading = Reloading(path, file, settings, self.read)

    def read(self) -> tuple[Any, Settings]:
        file = parse(read_tree(self.path), str(self.path))
        settings = Settings.validated(file.application.args)
        if settings.models[0].ref == "away":
            raise InputError("there is no model 'away'")
        return file, settings

    def write(self, tree: object = None, **args: object) -> None:
        args = {"models": [{"ref": "a"}]} | args
        self.path.write_text(yaml.safe_dump(tree or {"applications": [{"args": args}]}))

    def look(self, times: int = 2) -> list[str]:
        """What is said by some looks."""
        self.said.clear()
        for _ in range(times):
            self.reloading.look()
        return self.said

    @property
    def settings(self) -> Settings:
        return Settings.validated(json.loads(self.published["here"])["settings"])


@pytest.fixture
def running(tmp_path, monkeypatch) -> Running:
    return Running(tmp_path / "serve.yaml", monkeypatch)


def test_what_changes_is_published_once_it_is_written(running):
    assert running.look() == []
    running.write(limits={"max_images": 3}, origins=["*"])
    assert running.look(1) == []  # it may still be written to
    assert running.look(1) == [f"{running.path}: limits, origins changed, without a restart"]
    assert (running.settings.limits.max_images, running.settings.changes) == (3, "here")
    assert running.look(5) == []
    os.utime(running.path)
    assert running.look() == []  # nothing is other than it was


def test_what_takes_a_restart_is_told_by_its_key_and_the_rest_is_had(running):
    args = {"models": [{"ref": "b"}], "ingress": {"replicas": 2}}
    running.write({"http_options": {"port": 9}, "applications": [{"args": args, "name": "other"}]})
    assert [line.removeprefix(f"{running.path}: ") for line in running.look()] == [
        "http_options has changed, which takes a restart; it stays as it was",
        "name has changed, which takes a restart; it stays as it was",
        "ingress has changed, which takes a restart; it stays as it was",
        "models changed, without a restart",
    ]
    assert [model.ref for model in running.settings.models] == ["b"]
    assert running.settings.ingress.replicas == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "not YAML"),
        ("", "not a mapping"),
        ("applications: [{args: {models: []}}]", "nothing is served"),
        ("applications: [{args: {models: [{ref: away}]}}]", "there is no model 'away'"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_broken_file_changes_nothing_and_is_told_once(running, text, reason):
    running.path.unlink() if text is None else running.path.write_text(text)
    (line,) = running.look(5)
    assert line.startswith(f"{running.path}: ")
    assert line.count(str(running.path)) == 1
    assert reason in line
    assert "\n" not in line
    assert line.endswith("; nothing is changed")
    assert running.published == {}
    running.write(origins=["*"])
    assert len(running.look()) == 1
    assert running.settings.origins == ("*",)


def test_a_ray_that_cannot_be_reached_is_told_once_and_tried_again(running, monkeypatch):
    def unreached(*said: str) -> None:
        raise RpcError("no answer")

    running.write(origins=["*"])
    with monkeypatch.context() as patch:
        patch.setattr(reloading, "publish", unreached)
        (line,) = running.look(5)
        assert "Ray cannot be told of changes (no answer" in line
    assert len(running.look(1)) == 1
    assert running.settings.origins == ("*",)


def test_what_replicas_refuse_is_told_and_tried_again(running):
    running.write(models=[{"ref": "b"}])
    running.look()
    running.published["here/refused"] = json.dumps({"count": 1, "reason": "b is broken"})
    assert running.look(5) == [f"{running.path}: b is broken; nothing is changed"]
    assert [model.ref for model in running.settings.models] == ["a"]  # of all, and who starts now
    before = running.published["here"]
    os.utime(running.path, ns=(1, 1))
    assert running.look() == [f"{running.path}: models changed, without a restart"]
    assert running.published["here"] != before
    assert running.look(5) == []  # what was refused before is not what is so now
    running.write(models=[{"ref": "b"}], origins=["*"])
    running.look()
    refused = {"count": json.loads(running.published["here"])["count"], "reason": "b is away"}
    running.published["here/refused"] = json.dumps(refused)
    running.look(5)
    assert ([model.ref for model in running.settings.models], running.settings.origins) == (
        ["b"], ()
    )  # fmt: skip
