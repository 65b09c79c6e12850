"""Words of texts, by the rule of genimg.models.text: what is no letter or digit divides them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Ability
from genimg.data.beside import BYTES, composed
from genimg.data.columns import COLUMNS
from genimg.errors import InputError

MOST_WORDS = 5_000  # of a vocabulary: of more the most frequent
NEAREST = 3  # known words that are told beside one that is not
FEW = 50  # known words that are all told
_WORD = re.compile(rb"[0-9a-z\x80-\xff]+")


def words_in(text: str) -> list[str]:
    """Small letters of the Latin alphabet stand for its capitals.

    >>> words_in("A red disc, left of it a star.")
    ['a', 'red', 'disc', 'left', 'of', 'it', 'a', 'star']
    """
    return [word.decode(errors="ignore") for word in _WORD.findall(text.encode().lower())]


def vocabulary_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of texts, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_in(composed(text)))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(word for word, _ in ranked[:MOST_WORDS])


def refuse_unknown(text: str, vocabulary: Sequence[str], most: int) -> None:
    """InputError for a text that a model cannot read: of other words, of none, or of too many."""
    told, text = f"text={text!r}", composed(text)
    words, known = words_in(text), set(vocabulary)
    if not words:
        raise InputError(f"{told}: has no words; say what to draw, or leave it out")
    for word in words:
        if word not in known:
            near = get_close_matches(word, vocabulary, n=NEAREST, cutoff=0.0)
            every = f"; all are: {', '.join(sorted(known))}" if len(known) <= FEW else ""
            raise InputError(
                f"{told}: the word {word!r} is not known; the nearest that are:"
                f" {', '.join(near) or 'none'}{every}"
            )
    if len(words) > most:
        raise InputError(f"{told}: has {len(words)} words; at most {most} are read, so say less")
    if (count := len(text.encode())) > BYTES:
        raise InputError(f"{told}: has {count} bytes; at most {BYTES} are read, so say less")


def off_grammar(text: str, ability: Ability) -> str:
    """What a person should know whose text has none but known words, and is of no other kind that
    a model has learnt; empty where it is, or where that is not known."""
    if ability.read is None or ability.read(" ".join(words_in(composed(text)))) is not None:
        return ""
    return (
        f"text={text!r}: all its words are known, but no such texts were learnt, so anything may be"
        f" drawn; they are\n{ability.grammar}"
    )


def examples_of(vocabulary: Sequence[str], count: int) -> list[str]:
    """So many texts of words, which mean nothing."""
    every = list(vocabulary) or ["x"]
    return [
        " ".join(every[(at + further) % len(every)] for further in range(1 + at % 8))
        for at in range(count)
    ]


def tokens_of(texts: Sequence[str]) -> Tensor:
    """int64 [N, BYTES]: as genimg.contracts.Rows has texts."""
    rows = [COLUMNS["text"].row(text) for text in texts]
    return torch.from_numpy(np.stack(rows)).long()
