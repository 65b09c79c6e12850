"""A reader of texts: words of a vocabulary, and a recurrent network that goes over them both ways.

What it reads stands in for classes in networks that are told some: `asked` says what that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genimg.contracts import Rows
from genimg.models.rows import Linear, in_blocks

_WORD = 2**64
_BASE = 0x9E3779B97F4A7C15  # odd, of the hashes of words


class Tokens(nn.Module):
    """Texts int64 [N, T], UTF-8 bytes + 1, 0 behind the last -> numbers of words int64 [N, most].

    0: no word any more; 1 and on: a word of the vocabulary; the last: one that is not in it. Words
    are of letters, digits and all that is not ASCII, capitals as small letters; those behind `most`
    are left out. Found by hashes, on the texts' device, which nothing has to wait for.
    """

    hashes: Tensor
    powers: Tensor

    def __init__(self, vocabulary: Sequence[str], most: int, longest: int) -> None:
        super().__init__()
        self.most = most
        powers = [pow(_BASE, place, _WORD) for place in range(longest)]
        hashes = sorted(hashed(word.encode(), powers) for word in set(vocabulary))
        for name, values in (("powers", map(signed, powers)), ("hashes", hashes)):
            self.register_buffer(name, torch.tensor([*values], dtype=torch.int64), persistent=False)

    def forward(self, texts: Tensor) -> Tensor:
        capital = (texts > ord("A")) & (texts <= ord("Z") + 1)
        texts = texts + 32 * capital
        inside = (texts > ord("a")) & (texts <= ord("z") + 1)
        inside |= (texts > ord("0")) & (texts <= ord("9") + 1) | (texts > 0x80)
        begins = inside.clone()
        begins[:, 1:] &= ~inside[:, :-1]
        places = torch.arange(texts.shape[1], device=texts.device).expand_as(texts)
        first = torch.where(begins, places, 0).cummax(dim=1).values
        parts = texts * self.powers[places - first]
        number = begins.cumsum(dim=1) * inside  # of its word, from 1 on
        which = torch.arange(1, self.most + 1, device=texts.device)[:, None]
        mine = number[:, None] == which  # [N, most, T]
        hashes = (parts[:, None] * mine).sum(dim=2)
        if not len(self.hashes):
            return mine.any(dim=2).long()
        places = torch.searchsorted(self.hashes, hashes).clamp(max=len(self.hashes) - 1)
        known = self.hashes[places] == hashes
        return torch.where(known, places + 1, len(self.hashes) + 1) * mine.any(dim=2)


def hashed(word: bytes, powers: Sequence[int]) -> int:
    """Of a word's bytes in small letters, as an int64."""
    return signed(sum((byte + 1) * power for byte, power in zip(word, powers, strict=False)))


def signed(value: int) -> int:
    return (value + _WORD // 2) % _WORD - _WORD // 2


class Gates(nn.Module):
    """A gated recurrent unit (Cho et al. 2014; the reset after the product, as cuDNN has it)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.of_input = Linear(inputs, 3 * width)
        self.of_state = Linear(width, 3 * width)

    def forward(self, given: Tensor, state: Tensor) -> Tensor:
        """`of_input` of what comes [N, 3 width], what was [N, width] -> what is."""
        let, keep, new = given.chunk(3, dim=1)
        of_let, of_keep, of_new = self.of_state(state).chunk(3, dim=1)
        fresh = (new + (let + of_let).sigmoid() * of_new).tanh()
        return torch.lerp(fresh, state, (keep + of_keep).sigmoid())


class TextReader(nn.Module):
    """Texts int64 [N, T] -> what is read in them, float32 [N, width].

    A bidirectional recurrent network over the words (Schuster & Paliwal 1997): half of the numbers
    are what it ends with forwards, half backwards. Of a text without words they are zeros.

    every: [N, most, width + 1] instead: what it has read at each word, and 1, or zeros
    width: a multiple of 8
    longest: bytes of a text, T at most
    """

    def __init__(
        self, vocabulary: Sequence[str], most: int, width: int, longest: int, every: bool = False
    ) -> None:
        super().__init__()
        self.tokens = Tokens(vocabulary, most, longest)
        self.embedding = nn.Embedding(len(vocabulary) + 2, width)
        self.ways = nn.ModuleList(Gates(width, width // 2) for _ in range(2))
        self.every = every

    def forward(self, texts: Tensor) -> Tensor:
        # in whole blocks also what lies between the layers has the same bits in any batch
        return self.read(texts) if self.training else in_blocks(self.read, texts)

    def read(self, texts: Tensor) -> Tensor:
        numbers = self.tokens(texts)
        there = (numbers > 0)[..., None]
        words = self.embedding(numbers)
        count = numbers.shape[1]
        states = []
        for way, order in zip(self.ways, (range(count), range(count)[::-1]), strict=True):
            assert isinstance(way, Gates)
            given = way.of_input(words.flatten(0, 1)).unflatten(0, (-1, count))
            state = given.new_zeros(len(given), given.shape[2] // 3)
            found = [state] * count
            for place in order:
                state = torch.where(there[:, place], way(given[:, place], state), state)
                found[place] = state
            states.append(torch.stack(found, dim=1) if self.every else state)
        read = torch.cat(states, dim=-1).float()
        if not self.every:
            return read
        return torch.cat([read, torch.ones_like(read[..., :1])], dim=-1) * there


def asked(network: nn.Module, rows: Rows) -> Tensor | None:
    """What a network is asked for: classes float32 [N, K], or what it reads in texts; None: neither
    is told."""
    reader = getattr(network, "reader", None)
    if reader is None:
        return rows.get("classes")
    made: Tensor = reader(rows["text"])
    return made
