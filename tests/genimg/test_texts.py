"""Texts: words and their numbers, what is refused, and a reader beside PyTorch's own network."""

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genimg.data.beside import BYTES
from genimg.errors import InputError
from genimg.models.text import TextReader, Tokens
from genimg.texts import examples_of, refuse_unknown, tokens_of, vocabulary_of, words_in

VOCABULARY = ("a", "disc", "red", "of", "left", "é", "größe", "3d", "star")
MOST = 6


TOKENS = Tokens(VOCABULARY, MOST, BYTES)
OWN = dict(zip(VOCABULARY, TOKENS(tokens_of(VOCABULARY))[:, 0].tolist(), strict=True))


def numbers(text: str) -> list[int]:
    found = TOKENS(tokens_of([text]))[0].tolist()
    return found[: found.index(0)] if 0 in found else found


def numbered(text: str) -> list[int]:
    """The same, word by word."""
    return [OWN.get(word, len(VOCABULARY) + 1) for word in words_in(text)][:MOST]


@pytest.mark.parametrize(
    "text",
    ["", "a red disc", "  A RED-disc,left of 3D... ", "größe É é", "red" * 40, "a " * 100, "!?"],
)
def test_words_are_numbered_alike_whoever_divides_the_text(text):
    assert sorted(OWN.values()) == [*range(1, len(VOCABULARY) + 1)]
    assert numbers(text) == numbered(text)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_numbers(text):
    text = unicodedata.normalize("NFC", text)
    assert numbers(text) == numbered(text)


def test_a_vocabulary_is_of_all_words_the_most_frequent_first():
    assert vocabulary_of(["a red disc", "A blue star, a disc"]) == (
        "a", "disc", "blue", "red", "star",
    )  # fmt: skip
    spelt = unicodedata.normalize("NFD", "café")
    assert vocabulary_of([spelt]) == ("café",)  # as one who types it asks for it
    assert torch.equal(tokens_of([spelt]), tokens_of(["café"]))
    refuse_unknown(spelt, vocabulary_of([spelt]), MOST)
    assert vocabulary_of(f"w{number}" for number in range(6000))[-1] == "w5498"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a rad disc", "'rad' is not known; the nearest that are: red, a"),
        ("a rad disc", "; all are: 3d, a, disc, größe, left, of, red, star, é"),
        (" ,!", "has no words"),
        ("a red disc left of a star", "has 7 words; at most 6"),
        ("a " + "," * 300, "has 302 bytes; at most 256"),
    ],
)
def test_what_cannot_be_read_is_refused(text, said):
    refuse_unknown("A red disc.", VOCABULARY, MOST)
    with pytest.raises(InputError, match=r"^text=") as error:
        refuse_unknown(text, VOCABULARY, MOST)
    assert said in str(error.value)


def reader(every: bool = False) -> TextReader:
    torch.manual_seed(0)
    return TextReader(VOCABULARY, MOST, 8, BYTES, every)


@pytest.mark.parametrize("text", ["a red disc", "left of a star 3d", "red"])
def test_it_reads_as_a_bidirectional_network_of_pytorch_does(text):
    mine = reader()
    theirs = nn.GRU(8, 4, bidirectional=True, batch_first=True)
    for way, end in zip(mine.ways, ("", "_reverse"), strict=True):
        for layer, name in ((way.of_input, "ih"), (way.of_state, "hh")):
            getattr(theirs, f"weight_{name}_l0{end}").data = layer.weight.data
            getattr(theirs, f"bias_{name}_l0{end}").data = layer.bias.data
    words = mine.tokens(tokens_of([text]))
    words = words[:, : int((words > 0).sum())]
    made, last = theirs(mine.embedding(words))
    torch.testing.assert_close(mine(tokens_of([text])), last.transpose(0, 1).flatten(1))
    every = reader(every=True)
    every.load_state_dict(mine.state_dict())
    each = every(tokens_of([text]))[0]
    torch.testing.assert_close(each[: words.shape[1], :-1], made[0])
    assert each[:, -1].tolist() == [1.0] * words.shape[1] + [0.0] * (MOST - words.shape[1])


def test_of_no_words_it_reads_zeros_and_of_others_what_they_are_in_this_order():
    made = reader()(tokens_of(["", "red disc", "disc red", "red disc"]))
    assert not made[0].any()
    assert torch.equal(made[1], made[3])
    assert not torch.allclose(made[1], made[2])


def test_at_inference_a_text_is_read_alike_in_any_batch():
    network = reader().eval()
    texts = tokens_of(examples_of(VOCABULARY, 40))
    with torch.no_grad():
        together = network(texts)
        for count in (1, 3, 17):
            assert torch.equal(network(texts[:count]), together[:count])
            assert torch.equal(network(texts[-count:]), together[-count:])


def test_its_vocabulary_is_no_part_of_its_state():
    names = reader().state_dict()
    assert not [name for name in names if "tokens" in name]
    assert all(np.isfinite(value.numpy()).all() for value in names.values())
