"""DRAW: a canvas that is drawn on step by step, and looked at, where a network attends to.

Gregor et al. 2015; with what a caption says at each word, as alignDRAW (Mansimov et al. 2016).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.ladder import bounded
from genimg.models.one_level import Level
from genimg.models.rows import Linear, in_blocks

LEAST = 1e-6  # of sums that are divided by
MOST = 1e4  # of scores, either way


class LSTM(nn.Module):
    """A layer of memory (Hochreiter & Schmidhuber 1997): what comes [N, inputs], h and c
    [N, width] -> h, c."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = Linear(inputs + width, 4 * width)

    def forward(self, given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        keep, let, new, out = self.gates(torch.cat([given, h], dim=1)).float().chunk(4, dim=1)
        c = (keep + 1).sigmoid() * c + let.sigmoid() * new.tanh()
        return out.sigmoid() * c.tanh(), c


class Glimpse(nn.Module):
    """Where it is looked, or drawn: a grid of patch x patch Gaussian filters over the image.

    Its place, spacing, width and strength follow from h [N, width] (eq. 19 to 26, Gregor et al.
    2015); at first it spans the image.
    """

    def __init__(self, width: int, size: int, patch: int) -> None:
        super().__init__()
        self.size, self.patch = size, patch
        self.where = Linear(width, 5)
        nn.init.normal_(self.where.weight, std=0.01)
        nn.init.zeros_(self.where.bias)

    def filters(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Down and across, float32 [N, patch, size] each, rows of which add up to 1; strength
        [N, 1, 1, 1]."""
        x, y, variance, spacing, strength = self.where(h).float()[..., None].unbind(dim=1)
        spacing = (self.size - 1) / (self.patch - 1) * spacing.exp()
        places = torch.arange(self.patch, device=h.device) - (self.patch - 1) / 2
        pixels = torch.arange(self.size, device=h.device)
        found = []
        for centre in (y, x):
            means = (self.size - 1) / 2 * (centre + 1) + places * spacing  # [N, patch]
            squares = (pixels - means[..., None]).square() / (2 * variance.exp()[..., None])
            bells = (-squares).exp()
            found.append(bells / bells.sum(dim=2, keepdim=True).clamp_min(LEAST))
        return found[0], found[1], strength.exp()[..., None, None]

    def read(self, planes: Tensor, h: Tensor) -> Tensor:
        """Planes [N, C, size, size] -> [N, C * patch * patch]."""
        down, across, strength = self.filters(h)
        seen = down[:, None] @ planes.float() @ across[:, None].mT
        return (strength * seen).flatten(1)

    def written(self, patches: Tensor, h: Tensor) -> Tensor:
        """[N, C, patch, patch] -> what is added to planes [N, C, size, size]."""
        down, across, strength = self.filters(h)
        return down[:, None].mT @ patches.float() @ across[:, None] / strength


class Alignment(nn.Module):
    """Words float [N, L, K + 1], the last number 1 where there is one, and h -> what they say now.

    Weights of the words are a softmax of what a layer makes of each beside h (eq. 5 and 6, Mansimov
    et al. 2016); of no words it is zeros.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.of_words = Linear(words, width)
        self.of_state = Linear(width, width, bias=False)
        self.to_score = Linear(width, 1, bias=False)

    def keys(self, words: Tensor) -> Tensor:
        """[N, L, width], the same at each step."""
        every = self.of_words(words[..., :-1].flatten(0, 1))
        return every.unflatten(0, (-1, words.shape[1])).float()

    def forward(self, words: Tensor, keys: Tensor, h: Tensor) -> Tensor:
        beside = (keys + self.of_state(h).float()[:, None]).tanh()
        scores = self.to_score(beside.flatten(0, 1)).float().unflatten(0, (-1, words.shape[1]))
        there = words[..., -1:]
        highest = scores.masked_fill(there == 0, -MOST).amax(dim=1, keepdim=True)
        weights = (scores - highest).clamp_max(0).exp() * there
        weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(LEAST)
        return (weights * words[..., :-1]).sum(dim=1)


class DrawVAE(nn.Module):
    """Encodes images [N, channels, size, size], and decodes latents, by drawing for `steps` steps.

    At each, a network that looks at image and canvas tells the posterior of `depth` latents, one
    that draws tells their prior by what it remembers, attends to words, and adds to the canvas:
    `planes` for each pixel, in which a likelihood reads the image; log_sigma [] is the scale of one
    that has a scale.

    told: K; of words [N, L, K + 1], or classes [N, K], which count as one word; 0: of None
    Latents [N, steps * depth] are standard normals, step after step, of which each prior makes its
    own.
    """

    log_sigma: Tensor
    mixture = None

    def __init__(
        self, depth: int, width: int, steps: int, patch: int, size: int, channels: int,
        planes: int, told: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.depth, self.width, self.steps = depth, width, steps
        self.latent = steps * depth
        self.shape, self.patch = (planes, size, size), patch
        self.look = Glimpse(width, size, patch)
        self.paint = Glimpse(width, size, patch)
        self.encoder = LSTM((channels + planes) * patch**2 + width, width)
        self.to_posterior = Linear(width, 2 * depth)
        self.to_prior = Linear(width, 2 * depth)
        self.alignment = Alignment(told, width) if told else None
        self.decoder = LSTM(depth + told, width)
        self.to_patch = Linear(width, planes * patch**2)
        self.start = nn.Parameter(torch.zeros(1, planes, 1, 1))
        self.register_buffer("log_sigma", torch.zeros(()))

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """The images themselves: they are looked at while it draws."""
        return (images,)

    def draw(
        self, seen: tuple[Tensor, ...], noise: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        """What `encode` gave, standard normals [N, latent] -> planes, and a level a step."""
        return self.drawn(seen[0], noise, classes)

    def latents(self, seen: tuple[Tensor, ...], classes: Tensor | None = None) -> Tensor:
        """What `encode` gave -> the posterior's mean [N, latent], as `decode` takes it."""
        nothing = seen[0].new_zeros(len(seen[0]), self.latent, dtype=torch.float32)
        _, levels = self.drawn(seen[0], nothing, classes)
        every = [(drawn - mean) * (-0.5 * wide).exp() for drawn, _, _, mean, wide in levels]
        return torch.cat(every, dim=1)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents [N, latent], of the prior N(0, 1) -> planes float32 [N, planes, H, W]."""
        return self.drawn(None, latents, classes)[0]

    def drawn(
        self, images: Tensor | None, noise: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        """The canvas at last, and the levels; images: None draws of the prior, which tells none."""
        if self.training:
            return self.rolled(images, noise, classes)
        # in whole blocks also what lies between the layers has the same bits in any batch
        given = [noise, *(each for each in (images, classes) if each is not None)]
        widths = [each[0].numel() for each in given]

        def block(rows: Tensor) -> Tensor:
            parts = [
                part.unflatten(1, each.shape[1:])
                for part, each in zip(rows.split(widths, dim=1), given, strict=True)
            ]
            noise, *others = parts
            image = others.pop(0) if images is not None else None
            canvas, levels = self.rolled(image, noise, others[0] if others else None)
            return torch.cat([canvas.flatten(1), *(each for level in levels for each in level)], 1)

        made = in_blocks(block, torch.cat([each.flatten(1).float() for each in given], dim=1))
        count = self.shape[0] * self.shape[1] * self.shape[2]
        levels = made[:, count:].split(5 * self.depth, dim=1) if images is not None else ()
        told = tuple(level.split(self.depth, dim=1) for level in levels)
        return made[:, :count].unflatten(1, self.shape), told

    def rolled(
        self, images: Tensor | None, noise: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        words = None
        if self.alignment is not None:
            assert classes is not None, "it is told something"
            words = classes if classes.dim() == 3 else F.pad(classes[:, None], (0, 1), value=1.0)
            keys = self.alignment.keys(words)
        canvas = self.start.float().expand(len(noise), *self.shape)
        blank = noise.new_zeros(len(noise), self.width)
        seen, drawing = (blank, blank), (blank, blank)
        levels: list[Level] = []
        for part in noise.split(self.depth, dim=1):
            h = drawing[0]
            prior, prior_wide = bounded(self.to_prior(h))
            if images is None:
                latent = prior + (0.5 * prior_wide).exp() * part
            else:
                glimpse = self.look.read(torch.cat([images, canvas], dim=1), h)
                seen = self.encoder(torch.cat([glimpse, h], dim=1), *seen)
                mean, wide = bounded(self.to_posterior(seen[0]))
                latent = mean + (0.5 * wide).exp() * part
                levels.append((latent, mean, wide, prior, prior_wide))
            given = latent
            if words is not None and self.alignment is not None:
                given = torch.cat([latent, self.alignment(words, keys, h)], dim=1)
            drawing = self.decoder(given, *drawing)
            h = drawing[0]
            patches = self.to_patch(h).unflatten(1, (self.shape[0], self.patch, self.patch))
            canvas = canvas + self.paint.written(patches, h)
        return canvas, tuple(levels)
