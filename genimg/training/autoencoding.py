"""The autoencoding method: variational autoencoders under bounds of the likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.losses import Likelihood, gaussian_kl, gaussian_log_ratio, importance_bound
from genimg.schedule import Train
from genimg.training.method import Method, Part, told, untold

# tags under which a batch's keys give noise of the posterior, pixels, and texts that are not told
POSTERIOR, PIXELS, UNTOLD = 1, 2, 3
_SIGMA_DECAY = 0.99  # a step, of the running log sigma that inference uses
_LOG_SIGMA_FLOOR = -6.0
_SLOWEST = 0.002  # rate at which a mixture follows: the latents of about 500 steps

Binarise = Literal["none", "dynamic"]


@dataclass(frozen=True)
class Bound:
    """What is maximised in place of the likelihood.

    beta: weight of the KL term; warmup: images over which it rises from 0
    free_bits: nats of each group of latents that cost nothing (eq. 15, Kingma et al. 2016), on
        average over the global batch; a group is a latent, or of planes of latents one plane
    importance: posterior samples an image, of whose importance weights the mean is taken before
        the logarithm (eq. 8, Burda et al. 2016)
    binarise: dynamic: pixels of the images are drawn anew each time, white by their values
    """

    beta: float
    warmup: int
    free_bits: float
    importance: int
    binarise: Binarise


class Autoencoding(Method):
    """Maximises a bound; the scale of a likelihood that has one is the best one.

    autoencoder: encode: images [N, C, H, W] -> a tuple of [N, ...]; draw: that, standard normals
        [N, latent], classes [N, K] or None -> planes, and levels, from the top: latents drawn, mean
        and log variance of their posterior, and of their prior unless it is N(0, 1), each [N, ...]
        Its `mixture`, if it is no None, follows the latents: it makes `statistics` of some, a mean
        over them, and of that and a rate takes a step with `follow`
    classes: K; the autoencoder is told which class an image is of; 0: it is given None, or if it
        has a reader what that reads in the image's text, and with a probability of `drop` zeros
    """

    def __init__(
        self, autoencoder: Part, likelihood: Likelihood, bound: Bound, classes: int, drop: float,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"autoencoder": autoencoder}, train, device)
        self.encode = self.compiled(autoencoder.network.encode)
        self.draw = self.compiled(autoencoder.network.draw)
        self.latent = int(autoencoder.network.latent)  # type: ignore[arg-type]
        self.mixture: Any = autoencoder.network.mixture
        self.likelihood = likelihood
        self.bound = bound
        self.classes, self.drop = classes, drop

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        bound, count = self.bound, self.bound.importance
        images = batch.rows["image"]
        if bound.binarise == "dynamic":
            images = binarised(images, rng.fold(batch.keys, PIXELS))
        with self.autocast:
            classes = self.told(batch)
            seen = self.encode(images)
            noise = rng.normal(rng.fold(batch.keys, POSTERIOR), (count, self.latent)).flatten(0, 1)
            if count > 1:
                seen = tuple(each.repeat_interleave(count, dim=0) for each in seen)
                images = images.repeat_interleave(count, dim=0)
                classes = None if classes is None else classes.repeat_interleave(count, dim=0)
            made, levels = self.draw(seen, noise, classes)
        made = made.float()
        levels = tuple(tuple(each.float() for each in level) for level in levels)

        log_sigma = self.scale(images, made, batch, sync)
        nll = self.likelihood.nll(images, made, log_sigma)
        rates = [by_group(gaussian_kl(*level[1:])) for level in levels]
        weight = bound.beta * min(1.0, (self.seen + batch.total) / max(bound.warmup, 1))
        if count > 1:
            ratio = torch.stack([gaussian_log_ratio(*level) for level in levels]).sum(dim=0)
            weights = (weight * ratio - nll).unflatten(0, (-1, count))
            cost = -importance_bound(weights).mean()
        else:
            cost = nll.mean() + weight * self.charged(torch.cat(rates, dim=1), batch, sync)
        # per pixel: the learning rate should not depend on the size of the image
        loss = cost / images[0].numel()
        self.step("autoencoder", loss, batch, sync)

        if self.mixture is not None:
            self.follow(levels[0][0].detach(), batch, sync)

        kls = torch.stack([rate.sum(dim=1).mean() for rate in rates])
        told = {"loss": loss, "nll": nll.mean(), "kl": kls.sum()}
        if len(kls) > 1:
            told |= {f"kl_{number}": kl for number, kl in enumerate(kls, 1)}
        if self.likelihood.scaled:
            told["log_sigma"] = log_sigma
            running = self.networks["autoencoder"].get_buffer("log_sigma")
            running.lerp_(log_sigma, 1 - _SIGMA_DECAY if self.seen else 1.0)
        self.finish(batch)
        return told

    def told(self, batch: Batch) -> Tensor | None:
        """float32 [N, ...] of each image; a class always, a text but where it is dropped."""
        every = told(self.networks["autoencoder"], batch, self.classes)
        if every is None or self.classes:
            return every
        return untold(every, rng.fold(batch.keys, UNTOLD), self.drop)

    def scale(self, images: Tensor, made: Tensor, batch: Batch, sync: Sync) -> Tensor:
        """log sigma []: that of the greatest likelihood of the global batch.

        (Eq. 5, Rybkin et al. 2021; of all posterior samples alike.)
        """
        if not self.likelihood.scaled:
            return self.networks["autoencoder"].get_buffer("log_sigma")
        squared = sync.mean((images - self.likelihood.mean(made)).square().mean(), batch.share)
        return (0.5 * squared.log()).clamp_min(_LOG_SIGMA_FLOOR)

    @torch.no_grad()
    def follow(self, latents: Tensor, batch: Batch, sync: Sync) -> None:
        """Let the mixture follow latents [N, D] of this worker's images: fast at first."""
        steps = self.seen // batch.total
        rate = max(_SLOWEST, (steps + 2) ** -0.6)
        self.mixture.follow(sync.mean(self.mixture.statistics(latents), batch.share), rate)

    def charged(self, rates: Tensor, batch: Batch, sync: Sync) -> Tensor:
        """KL of each image's groups of latents [N, G] -> their mean sum, but for the free bits."""
        mean = rates.mean(dim=0)
        if not self.bound.free_bits:
            return mean.sum()
        whole = sync.mean(mean, batch.share)
        return mean.where(whole > self.bound.free_bits, self.bound.free_bits).sum()


def by_group(rates: Tensor) -> Tensor:
    """KL of latents [N, D] or of planes of them [N, C, H, W] -> [N, D] or [N, C]."""
    return rates.reshape(*rates.shape[:2], -1).sum(dim=2)


def binarised(images: Tensor, keys: Tensor) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] -> each pixel 1 by its value's part of that way, or else -1.

    keys: int64 [N] (dynamic binarisation, section 5.2, Salakhutdinov & Murray 2008)
    """
    white = rng.uniform(keys, images.shape[1:]) < (images + 1) / 2
    return 2 * white.to(images.dtype) - 1
