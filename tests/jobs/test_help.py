"""The help of every verb: complete, with an example, and there before any heavy import."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

import jobs
from genimg.operations import OPERATIONS
from jobs.cli import app

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)

ASK = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO
from jobs.cli import main
told = {}
for name in sys.argv[1:]:
    sys.argv = ["genimg", *name.split(), "--help"]
    with redirect_stdout(StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            code = end.code
    heavy = sorted({"torch", "ray", "pyarrow", "boto3"} & sys.modules.keys())
    told[name] = (code, out.getvalue(), heavy)
print(json.dumps(told))
"""


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], TyperCommand]:
    """Every verb, also those within a group, by the words that call it."""
    found: dict[tuple[str, ...], TyperCommand] = {}
    for name, verb in group.commands.items():
        words = (*path, name)
        found |= leaves(verb, words) if isinstance(verb, TyperGroup) else {words: verb}
    return found


VERBS = leaves(GROUP)
OWN = [name for name in GROUP.commands if name not in OPERATIONS]
"""Verbs with a module of their own; those of operations are made of declarations."""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[int, str, list[str]]]:
    """By verb: exit code, help, and what heavy modules are imported then, in one new process."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, "", *GROUP.commands], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["", *GROUP.commands])
def test_help_comes_without_torch_and_ray(told, name: str):
    code, text, heavy = told[name]
    assert code == 0
    assert f"{name} [OPTIONS]" in text
    assert heavy == []


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_the_help_gives_an_example_that_the_verb_takes(words: tuple[str, ...]):
    examples = re.findall(r"Example: genimg (.+)", VERBS[words].help or "")
    assert len(examples) == 1
    given = shlex.split(examples[0])
    assert tuple(given[: len(words)]) == words
    VERBS[words].make_context(words[-1], given[len(words) :])  # raises on what it does not take


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_option_and_argument_is_explained(words: tuple[str, ...]):
    silent = [p.name for p in VERBS[words].params if not getattr(p, "help", None)]
    assert silent == []


def test_every_module_that_runs_as_a_verb_is_in_the_genimg_command():
    modules = Path(jobs.__file__).parent.glob("*.py")
    runnable = {m.stem for m in modules if 'if __name__ == "__main__"' in m.read_text()}
    assert runnable == {"cli", *OWN}


@pytest.mark.parametrize("name", OWN)
def test_each_verb_also_runs_as_a_module(name: str):
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m jobs.{name}" in done.stdout
