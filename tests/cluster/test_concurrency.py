"""Many processes on one registry: nothing is lost, and whoever loses a race is told."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.promotion import promote
from cluster.registry import Registry

WORKERS = 5  # more than there are cores; twenty in the slow test here and in that of test_s3


def at_once(registry: Registry, commands: Sequence[Sequence[str]]) -> list[Any]:
    """Run a worker process a command, all let go at the same moment; what each of them printed."""
    root = str(registry.storage)
    start = Path(tempfile.mkdtemp()) / "start"
    worker = Path(__file__).with_name("registry_worker.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), root, str(start), *command],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for command in commands
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        start.touch()
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(output) for output in outputs]


def test_registrations_at_once_lose_nothing_and_share_no_number(
    registry: Registry, checkpoint: Path
):
    printed = at_once(registry, [["register", str(checkpoint)]] * WORKERS)
    numbers = sorted(number for numbers in printed for number in numbers)
    assert numbers == list(range(1, 2 * WORKERS + 1))
    assert registry.numbers("dcgan") == numbers
    assert registry.verify("dcgan") == []


def test_promotions_of_one_alias_at_once_form_one_chain(registry: Registry, register):
    for _ in range(WORKERS):
        register()
    at_once(registry, [["promote", str(number), "best"] for number in range(1, WORKERS + 1)])
    history = registry.aliases("dcgan").history
    assert sorted(move.version for move in history) == list(range(1, WORKERS + 1))
    assert [move.previous for move in history] == [None, *(move.version for move in history[:-1])]
    assert registry.resolve("dcgan@best").number == history[-1].version


def test_promotions_of_many_aliases_at_once_do_not_disturb_one_another(
    registry: Registry, register
):
    register()
    aliases = [f"alias{worker}" for worker in range(WORKERS)]
    printed = at_once(registry, [["promote", "1", alias] for alias in aliases])
    assert all(outcome["conflicts"] == 0 for outcome in printed)
    assert registry.aliases("dcgan").holders == dict.fromkeys(sorted(aliases), 1)


@pytest.mark.slow
def test_twenty_registrations_at_once_lose_nothing(registry: Registry, checkpoint: Path):
    printed = at_once(registry, [["register", str(checkpoint)]] * 20)
    assert sorted(number for numbers in printed for number in numbers) == list(range(1, 41))
    assert registry.numbers("dcgan") == list(range(1, 41))
    assert registry.verify("dcgan") == []


@pytest.mark.parametrize("contenders", [2, WORKERS])
def test_of_promotions_with_one_expectation_one_wins_and_the_others_are_told_who(
    registry: Registry, register, contenders: int
):
    for _ in range(contenders + 1):
        register()
    promote(registry, "dcgan@1", "best")
    printed = at_once(
        registry, [["contend", str(number), "best"] for number in range(2, contenders + 2)]
    )
    winners = [number for number, outcome in enumerate(printed, 2) if outcome["won"]]
    assert len(winners) == 1
    assert registry.resolve("dcgan@best").number == winners[0]
    told = [outcome["told"] for outcome in printed if not outcome["won"]]
    assert all(f"names version {winners[0]}" in message for message in told)


KILLED = """
import os, signal, sys
from pathlib import Path
from cluster.registry import Registry
from cluster.places import open_storage
storage = open_storage(sys.argv[1])
class Deadly(type(storage)):
    step = 0
    def step_or_die(self):
        self.step += 1
        if self.step > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    def create(self, key, data):
        self.step_or_die()
        super().create(key, data)
    def upload(self, folder, prefix, without=()):
        self.step_or_die()
        super().upload(folder, prefix, without)
storage.__class__ = Deadly
Registry(storage).register("dcgan", Path(sys.argv[2]), {}, {})
"""


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_registration_killed_after_any_step_is_no_version(
    registry: Registry, checkpoint: Path, register, steps: int
):
    """Steps: the claim, the upload, version.json."""
    register()
    command = [sys.executable, "-c", KILLED, str(registry.storage), str(checkpoint), str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    killed = subprocess.run(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert registry.numbers("dcgan") == [1]
    assert registry.verify("dcgan") == []
    assert register().number == (2 if steps == 0 else 3)
