"""The autoencoding method: a variational autoencoder whose output scale is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.losses import gaussian_kl, gaussian_nll
from genimg.schedule import Train
from genimg.training.method import Method, Part

POSTERIOR = 1  # tag under which a batch's keys give the noise of the posterior
_SIGMA_DECAY = 0.99  # a step, of the running log sigma that inference uses
_LOG_SIGMA_FLOOR = -6.0


class Autoencoding(Method):
    """Minimises the negative ELBO with the optimal output scale (sigma-VAE, Rybkin et al. 2021).

    autoencoder: encode: images [N, C, H, W] -> mean and log variance, each [N, latent];
        decode: latents -> images; a buffer log_sigma []: log of the standard deviation of a
        pixel in [-1, 1]
    beta: weight of the KL term; kl_warmup: images over which it rises from 0
    """

    def __init__(
        self,
        autoencoder: Part,
        beta: float,
        kl_warmup: int,
        train: Train,
        device: torch.device,
    ) -> None:
        super().__init__({"autoencoder": autoencoder}, train, device)
        self.encode = self.compiled(autoencoder.network.encode)
        self.decode = self.compiled(autoencoder.network.decode)
        self.beta = beta
        self.kl_warmup = kl_warmup

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        images = batch.rows["image"]
        with self.autocast:
            mean, log_variance = self.encode(images)
            mean, log_variance = mean.float(), log_variance.float()
            noise = rng.normal(rng.fold(batch.keys, POSTERIOR), mean.shape[1:])
            decoded = self.decode(mean + (0.5 * log_variance).exp() * noise)
        decoded = decoded.float()

        # The scale that maximises the likelihood of the global batch (eq. 5, Rybkin et al. 2021).
        squared = sync.mean((images - decoded).square().mean(), batch.share)
        log_sigma = (0.5 * squared.log()).clamp_min(_LOG_SIGMA_FLOOR)
        nll = gaussian_nll(images, decoded, log_sigma).mean()
        kl = gaussian_kl(mean, log_variance).mean()
        weight = self.beta * min(1.0, (self.seen + batch.total) / max(self.kl_warmup, 1))
        # per pixel: the learning rate should not depend on the size of the image
        loss = (nll + weight * kl) / images[0].numel()
        self.step("autoencoder", loss, batch, sync)

        running = self.networks["autoencoder"].get_buffer("log_sigma")
        running.lerp_(log_sigma, 1 - _SIGMA_DECAY if self.seen else 1.0)
        self.finish(batch)
        return {"loss": loss, "nll": nll, "kl": kl, "log_sigma": log_sigma}
