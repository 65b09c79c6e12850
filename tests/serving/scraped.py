"""What /metrics shows, and whether expressions of Prometheus ask for that."""

import re
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

Samples = list[tuple[str, dict[str, str], float]]

_FUNCTIONS = {"sum", "max", "min", "rate", "increase", "histogram_quantile", "by", "or"}
_ABOUT_SCRAPES = {"up": {"job"}}  # which Prometheus has of each target itself


def scraped(text: str) -> Samples:
    """(name, labels, value) of all samples."""
    families = text_string_to_metric_families(text)
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def unknown_in(expression: str, samples: Samples) -> set[str]:
    """Metrics, and labels of them, that no sample has."""
    labels = dict(_ABOUT_SCRAPES)
    for name, its, _ in samples:
        labels.setdefault(name, set()).update(its)
    unknown: set[str] = set()
    text = re.sub(r"\[[\w$]+\]", "", expression)  # how far back
    grouped = set(_words(re.findall(r"\bby \(([^)]*)\)", text)))
    text = re.sub(r"\bby \([^)]*\)", "by", text)
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", text):
        asked = set(re.findall(r"(\w+)\s*=~?", matchers))
        unknown |= {f"{name}{{{label}}}" for label in asked - labels.get(name, set())}
    text = re.sub(r"\{[^}]*\}", "", text)
    names = set(re.findall(r"[a-z_]\w*", text)) - _FUNCTIONS
    unknown |= names - labels.keys()
    for name in names & labels.keys():
        unknown |= {f"{name} by {label}" for label in grouped - labels[name]}
    return unknown


def _words(lists: Iterable[str]) -> list[str]:
    return [word.strip() for each in lists for word in each.split(",")]
