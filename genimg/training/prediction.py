"""The prediction method: a network that sees some frames learns to say those that follow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.losses import gaussian_kl
from genimg.schedule import Train
from genimg.training.method import Method, Part

# Tags under which a batch's keys give which frames are shown, latents, and which clips are hidden.
SHOWN, LATENTS, HIDDEN = 1, 2, 3


class Prediction(Method):
    """Minimises the mean squared error of predicted frames, and by a weight what latents cost.

    predictor: learn: clips [N, T, C, H, W], told, bool [N, T], and noise -> (its predictions of
        their last frames, beliefs); told says which frames it may see where it predicts the next
        one, those from `given` on: the others it has to go by what it has predicted itself. noise:
        standard normals [N, T - 1, latents], or None where it has no `latents`; beliefs: posterior
        mean and log variance, prior mean and log variance of these, or none
    given, predicted: frames of a clip, T of them in all
    sampling: part of the training in which frames are shown, with a probability that falls from 1
        to 0 in it (section 2.4, S. Bengio et al. 2015, scheduled sampling, linear)
    kl: weight of the KL divergence of latents from their prior, nats a frame (eq. 3, Denton &
        Fergus 2018)
    hidden: part of the clips whose given frames are gray (0), so that one is begun from nothing
    """

    def __init__(
        self, predictor: Part, given: int, predicted: int, sampling: float, kl: float,
        hidden: float, train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"predictor": predictor}, train, device)
        self.predict = self.compiled(predictor.network.learn)
        self.latents = int(predictor.network.latents)  # type: ignore[arg-type]
        self.given, self.frames = given, given + predicted
        self.sampling = sampling
        self.kl = kl
        self.hidden = hidden

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        frames = self.begun(batch.rows["frames"][:, : self.frames], batch.keys)
        noise = self.noise(batch.keys) if self.latents else None
        with self.autocast:
            made, beliefs = self.predict(frames, self.told(batch.keys), noise)
        made = made.float()
        error = F.mse_loss(made, frames[:, -made.shape[1] :])
        told = {"loss": error}
        if beliefs:
            nats = gaussian_kl(*(each.float() for each in beliefs)).flatten(2).sum(dim=2).mean()
            told = {"loss": error + self.kl * nats, "squared_error": error, "kl": nats}
        self.step("predictor", told["loss"], batch, sync)
        self.finish(batch)
        return told

    def begun(self, frames: Tensor, keys: Tensor) -> Tensor:
        """Clips [N, T, C, H, W] with keys int64 [N], of some of which the given frames are gray."""
        if not self.hidden:
            return frames
        shown = rng.uniform(rng.fold(keys, HIDDEN), ()) >= self.hidden
        given = torch.where(shown[:, None, None, None, None], frames[:, : self.given], 0.0)
        return torch.cat([given, frames[:, self.given :]], dim=1)

    def told(self, keys: Tensor) -> Tensor:
        """bool [N, T]: which frames are shown, of clips with keys int64 [N]."""
        return rng.uniform(rng.fold(keys, SHOWN), (self.frames,)) < self.probability

    def noise(self, keys: Tensor) -> Tensor:
        """float32 [N, T - 1, latents]."""
        return rng.normal(rng.fold(keys, LATENTS), (self.frames - 1, self.latents))

    @property
    def probability(self) -> float:
        """That a frame which is not given is shown now."""
        if not self.sampling:
            return 0.0
        return max(0.0, 1 - self.seen / (self.sampling * self.train.images))
