"""A causal transformer (Radford et al. 2018) over the codes of images, row by row."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.rows import Linear

HEAD = 32  # channels of an attention's head

Past = tuple[Tensor, Tensor]
"""Keys and values of the places before, each [N, heads, places, HEAD]."""


class CausalPrior(nn.Module):
    """Codes int64 [N, length] -> logits [N, length, codes] of each, given those before it.

    Of `classes` above 0, which of them an image is of, float32 [N, classes], is told at its start.
    """

    def __init__(self, codes: int, length: int, width: int, layers: int, classes: int = 0) -> None:
        super().__init__()
        self.length = length
        self.of_codes = nn.Embedding(codes, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.of_classes = Linear(classes, width, bias=False) if classes else None
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.to_logits = Linear(width, codes)
        nn.init.normal_(self.of_codes.weight, std=0.02)

    def forward(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        rows = torch.cat([self.start(len(codes), classes), self.of_codes(codes[:, :-1])], dim=1)
        rows = rows + self.places
        for layer in self.layers:
            rows, _ = layer(rows)
        return self.to_logits(self.norm(rows))

    def start(self, count: int, classes: Tensor | None) -> Tensor:
        """[N, 1, width]: what stands in the place before the first code."""
        if self.of_classes is None:
            return self.places.new_zeros(count, 1, self.places.shape[1])
        return self.of_classes(classes)[:, None]

    def draw(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Codes int64 [N, length] of standard normals [N, length], one for each.

        The code at which the cumulative probability passes that of the normal. In float32.
        """
        with torch.autocast(latents.device.type, enabled=False):
            levels = 0.5 * torch.erfc(latents.double() / -math.sqrt(2))
            rows, past, drawn = self.start(len(latents), classes), [None] * len(self.layers), []
            for place in range(self.length):
                rows = rows + self.places[place]
                for number, layer in enumerate(self.layers):
                    rows, past[number] = layer(rows, past[number])
                logits = self.to_logits(self.norm(rows))[:, 0]
                passed = logits.double().softmax(dim=1).cumsum(dim=1) <= levels[:, place, None]
                drawn.append(passed.sum(dim=1).clamp_max(logits.shape[1] - 1))
                rows = self.of_codes(drawn[-1])[:, None]
        return torch.stack(drawn, dim=1)


class Layer(nn.Module):
    """Rows [N, T, width] and what each takes of itself and those before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.before = nn.LayerNorm(width)
        self.to_all = Linear(width, 3 * width)  # queries, keys, values
        self.out = Linear(width, width)
        self.behind = nn.Sequential(
            nn.LayerNorm(width), Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width)
        )

    def forward(self, rows: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """past: of the rows before, which are left out of `rows`; None: these are all."""
        every = self.to_all(self.before(rows)).unflatten(2, (3, self.heads, -1))
        query, key, value = every.permute(2, 0, 3, 1, 4).unbind(0)
        if past is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(past, (key, value), strict=True))
        taken = F.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        rows = rows + self.out(taken.transpose(1, 2).flatten(2))
        return rows + self.behind(rows), (key, value)
