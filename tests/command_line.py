"""The `genimg` command in this process: a fixture for the rooms whose tests call it."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[[str], Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `genimg ARGUMENTS` as its process would, but in this one."""
    from jobs import cli

    monkeypatch.setenv("COLUMNS", "200")

    def run(arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["genimg", *shlex.split(arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(int(end.value.code or 0), *capsys.readouterr())

    return run
