"""The config file of a server that runs: what changes in it is had without a restart, or told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.changes import publish, published, withdraw
from cluster.storage import StorageError
from cluster.versions import RegistryError
from genimg.errors import InputError
from jobs.console import say
from jobs.server.config_file import Application, ServeFile

_Signature = tuple[int, int, int]


class Reloading:
    """Looks at a config file, and tells replicas of what can be changed while they run.

    A file that is written to is read once it stays as it is from one look to the next. One that is
    wrong, or that asks for what is not there, changes nothing; what one replica refuses none has,
    nor one that starts later.
    """

    def __init__(
        self, path: Path, file: ServeFile, settings: Any, read: Callable[[], tuple[ServeFile, Any]]
    ) -> None:
        """read: the file and its settings as they are now, checked; raises as `genimg serve` does.

        settings: those in force; their `changes` is where replicas look.
        """
        self.path, self.file, self.settings, self.read = path, file, settings, read
        self._last: Any = None  # settings before the last change, until it is taken back
        self.count = 0  # of changes
        self._known = self._before = _signature(path)
        self._told = ""
        self._reachable = True

    def look(self) -> None:
        """To be called every second or so."""
        from ray.exceptions import RayError  # Ray is imported once its flags are set

        known = self._known
        try:
            self._look()
        except RayError as error:  # the next look may reach it
            self._known = known
            if self._reachable:
                say(f"{self.path}: Ray cannot be told of changes ({' '.join(str(error).split())})")
            self._reachable = False
        else:
            self._reachable = True

    def _look(self) -> None:
        self._tell_refusal()
        now = _signature(self.path)
        settled, self._before = now == self._before, now
        if now == self._known or not settled:
            return
        self._known = now
        try:
            file, settings = self.read()
        except (InputError, RegistryError, StorageError) as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            say(f"{self.path}: {reason}; nothing is changed")
            return
        renewed, later = self.settings.renewed(settings)
        for key in [*_changed(self.file, file), *later]:
            say(f"{self.path}: {key} has changed, which takes a restart; it stays as it was")
        live = [key for key in type(renewed).model_fields if _differ(self.settings, renewed, key)]
        if live:
            before = self.settings
            self._publish(renewed)
            self._last = before
            say(f"{self.path}: {', '.join(live)} changed, without a restart")

    def _publish(self, settings: Any) -> None:
        content = {
            "count": self.count + 1,
            "settings": settings.model_dump(mode="json", exclude_unset=True),
        }
        publish(settings.changes, json.dumps(content))
        self.count += 1
        self.settings = settings

    def close(self) -> None:
        withdraw(self.settings.changes)

    def _tell_refusal(self) -> None:
        said = published(f"{self.settings.changes}/refused")
        if said and (told := json.loads(said))["count"] == self.count and said != self._told:
            if self._last is not None:
                self._publish(self._last)
            self._last, self._told = None, said
            say(f"{self.path}: {told['reason']}; nothing is changed")


def _signature(path: Path) -> _Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _changed(old: ServeFile, new: ServeFile) -> list[str]:
    """Keys beside `args` that differ."""
    keys = [key for key in ("proxy_location", "http_options") if _differ(old, new, key)]
    of = (old.application, new.application)
    return keys + [key for key in Application.model_fields if key != "args" and _differ(*of, key)]


def _differ(old: Any, new: Any, key: str) -> bool:
    return bool(getattr(old, key) != getattr(new, key))
