"""Each claim of docs/threat-model.md names tests that there are."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "threat-model.md").read_text()
CLAIMS = [
    line.split(" | ")
    for line in TEXT.splitlines()
    if line.startswith("|") and ".py" in line.rpartition(" | ")[2]
]


@pytest.mark.parametrize(("claim", "named"), CLAIMS)
def test_a_claim_is_held_by_tests(claim, named):
    files = re.findall(r"`([\w/]+\.py)", named)
    content = "".join((TESTS / file).read_text() for file in files)
    assert "def test_" in content
    for name in re.findall(r"\btest_\w+(?!\w*\.py)\b", named):
        assert f"def {name}(" in content or f"{name}.py" in named, name


def test_there_are_claims():
    assert len(CLAIMS) > 15
