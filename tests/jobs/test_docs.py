"""Commands in README and docs: what a shell makes of each is taken by its verb, key by key."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import jobs
from genimg import recipes
from genimg.errors import InputError
from jobs.cli import app
from jobs.sweeps.space import parse_space

ROOT = Path(jobs.__file__).parents[1]
ROOMS = "genimg", "cluster", "jobs", "serving", "tests"
GROUP = typer.main.get_command(app)
TOLD = r"""
genimg() { printf '%s\0' "$@" $'\n' >&3; }
python() { [ "$1" = -m ] && genimg "${2#jobs.}" "${@:3}"; }
ray() { while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done; shift; "$@"; }
exec 3>&1 >/dev/null
"""
"""In the place of each program that is looked at: its arguments. There are no others in PATH."""


def blocks(page: str) -> Iterator[str]:
    """What is set as code, a script each."""
    yield from re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    for block in re.split(r"^(?! {4}|$).*", page, flags=re.M):
        script = "\n".join(line[4:] for line in block.splitlines())
        if re.search(r"^(genimg [a-z]|ray job submit)", script, re.M):
            yield script


def commands(page: Path) -> list[list[str]]:
    script = TOLD + "\n".join(blocks(page.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", script],
            cwd=folder,
            env={"PATH": ""},
            capture_output=True,
            text=True,
        )
    assert "syntax error" not in done.stderr, f"{page.name}: {done.stderr}"
    assert "unexpected EOF" not in done.stderr, f"{page.name}: {done.stderr}"
    return [each.split("\0")[:-1] for each in done.stdout.split("\n\0")[:-1]]


PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FOUND = [given for page in PAGES for given in commands(page)]


@pytest.mark.parametrize("given", FOUND, ids=shlex.join)
def test_each_command_is_one_that_its_verb_takes(given: list[str]):
    verb, asked = GROUP, list(given)
    while isinstance(verb, typer.core.TyperGroup):
        verb = verb.commands[asked.pop(0)]
    values = verb.make_context(given[0], asked).params
    if given[0] == "train":
        recipes.named(values["recipe"]).override(values["overrides"] or [])
    elif given[0] == "tune":
        parse_space(recipes.named(values["recipe"]), values["assignments"] or [])
    elif overrides := values.get("overrides"):
        assert any(takes(recipe, overrides) for recipe in recipes.RECIPES)


def takes(recipe: str, overrides: list[str]) -> bool:
    try:
        recipes.named(recipe).override(overrides)
    except InputError:
        return False
    return True


def test_commands_were_found():
    assert len(FOUND) > 150
    assert {"train", "tune", "serve", "models", "sample", "compose"} <= {each[0] for each in FOUND}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """To files that there are, and headings in them."""
    for place, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        to = (page.parent / place).resolve() if place else page
        assert to.exists(), place
        if heading:
            titles = re.findall(r"^#+ (.*)", to.read_text(), re.M)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, heading


def test_the_house_has_what_its_map_names():
    named = set(re.findall(r"\b\w+\.py\b", (ROOT / "docs" / "house.md").read_text()))
    there = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert named - there == set()
