"""What is wrong is told in the words of the command line; help is as wide as the terminal."""

from itertools import pairwise

import pytest
import typer

from jobs.cli import app
from jobs.wording import worded

GROUP = typer.main.get_command(app)
FLAGS = {"scale": "--scale", "n": "-n", "of": "--of", "to_label": "--to-label", "back": "--back"}


@pytest.mark.parametrize(
    ("message", "given", "told"),
    [
        ("scale=7: at most 4", {"scale": "7"}, "--scale '7': at most 4"),
        ("scale='a: b'; known: 2", {"scale": "a: b"}, "--scale 'a: b': known: 2"),
        ("scale=7.0: too much", {"scale": "7e0"}, "--scale '7e0': too much"),
        ("n=0: give more", {"n": 0}, "-n 0: give more"),
        ("n=1: give more", {"n": 1}, "-n 1: give more"),
        ("to_label='x': no", {"to_label": "x"}, "--to-label 'x': no"),
        ("back=true: leave it out", {"back": True}, "--back: leave it out"),
        ("of=None: give one (of=7)", {"of": None}, "--of: give one (--of 7)"),
        ("scale.0: none is given", {"scale": "[{}]"}, "--scale: 0: none is given"),
        ("scale.0.low=3: above", {"scale": "[{low: 3}]"}, "--scale: 0.low=3: above"),
        ("scale.0.low=3: above", {"scale": None}, "scale.0.low=3: above"),
        ("scale=3: x", {"scale": ["3", "5"]}, "--scale 3: x"),
        ("to_label: none such", {"to_label": None}, "--to-label: none such"),
        ("image: none is read; of=7", {}, "image: none is read; --of 7"),
        ("train.n=3: at most 2, as train.n=1", {"n": "1"}, "train.n=3: at most 2, as train.n=1"),
        ("scale=3: x", {"config": "a.yaml"}, "scale=3: x"),  # it is that file's key
        ("scale=3: x", {"config": "a.yaml", "scale": "3"}, "--scale '3': x"),
        ("note.txt: not an image", {}, "note.txt: not an image"),
    ],
)
def test_a_message_about_a_key_becomes_one_about_its_option(message, given, told):
    assert worded(message, FLAGS, given) == told
    assert worded(message, {}, {}) == message


def test_paragraphs_of_help_are_as_wide_as_the_terminal(command, monkeypatch):
    for name in ("serve", "train", "models list", "keys add"):
        told = {}
        for width in (80, 120):
            monkeypatch.setenv("COLUMNS", str(width))
            monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
            text = command(f"{name} --help").out.partition("╭")[0]
            told[width] = [line.strip() for line in text.splitlines()]
        assert " ".join(told[80]).split() == " ".join(told[120]).split()
        for width, lines in told.items():  # none ends where the next word had room
            for line, after in pairwise(lines):
                if line and after:
                    assert len(f"{line} {after.split()[0]}") > width - 2, (name, line)


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["--discover"], ["*"]),
        (["--discover", "--port", "8001"], ["*"]),
        (["--discover", "*@production", "--discover", "gan-*"], ["*@production", "gan-*"]),
        (["--discover=*@best", "--model", "figures"], ["*@best"]),
        (["--model", "figures"], []),
    ],
)
def test_what_is_to_be_found_is_all_or_what_fits(words, patterns):
    context = GROUP.commands["serve"].make_context("serve", words)
    assert [*context.params["discover"]] == patterns
