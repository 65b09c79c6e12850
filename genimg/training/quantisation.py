"""The method of VQ-VAE: an autoencoder with a codebook, and a prior of the codes beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part, classes_of

RESTARTS = 1  # tag under which a batch's keys give places whose features may become codes
DECAY = 0.99  # a step, of the features that a code follows
UNUSED = 0.03  # of an equal share of the features: a code with less begins anew


class Quantisation(Method):
    """Minimises the squared error of images of which each feature has become its nearest code.

    Features are held to their codes (eq. 3, van den Oord et al. 2017), which follow the mean of
    the features that are theirs, over the global batch (appendix A.1 there). A code that is hardly
    used takes the place of a feature of the batch. The prior learns the codes as they are.

    autoencoder: encode, decode, nearest, features; buffers codebook, usage, sums, as of
        genimg.models.quantised
    prior: codes [N, T], classes [N, K] or None -> logits [N, T, codes]
    commitment: weight of the distance of features from their codes
    classes: K; the prior is told which class an image is of; 0: it is given None
    frozen: the autoencoder stays as it is
    """

    def __init__(
        self, autoencoder: Part, prior: Part, commitment: float, classes: int, frozen: bool,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"autoencoder": autoencoder, "prior": prior}, train, device)
        self.quantised = autoencoder.network
        self.encode = self.compiled(autoencoder.network.encode)
        self.decode = self.compiled(autoencoder.network.decode)
        self.prior = self.compiled(prior.network)
        self.commitment = commitment
        self.classes = classes
        self.frozen = frozen

    def start(self, weights: dict[str, Tensor]) -> None:
        """Begin with an autoencoder's weights."""
        for networks in (self.networks, self.averages):
            networks["autoencoder"].load_state_dict(weights)

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        images = batch.rows["image"]
        told: dict[str, Tensor] = {}
        with self.autocast, torch.set_grad_enabled(not self.frozen):
            features = self.encode(images).float()
        codes = self.quantised.nearest(features)  # type: ignore[operator]
        if not self.frozen:
            near = self.quantised.features(codes)  # type: ignore[operator]
            with self.autocast:
                made = self.decode(features + (near - features).detach())  # straight through
            error = F.mse_loss(made.float(), images)
            loss = error + self.commitment * F.mse_loss(features, near)
            self.step("autoencoder", loss, batch, sync)
            told = {"loss": loss, "squared_error": error}
            told["perplexity"] = self.follow(features.detach(), codes, batch, sync)

        classes = classes_of(batch, self.classes)
        with self.autocast:
            logits = self.prior(codes, classes)
        nats = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
        self.step("prior", nats, batch, sync)
        self.finish(batch)
        return told | {"prior": nats}

    @torch.no_grad()
    def follow(self, features: Tensor, codes: Tensor, batch: Batch, sync: Sync) -> Tensor:
        """Move the codes; returns how many, used alike, would be as hard to tell in this batch."""
        codebook, usage, sums = (
            self.quantised.get_buffer(name) for name in ("codebook", "usage", "sums")
        )
        rows = features.flatten(2).transpose(1, 2)  # [N, T, dimensions]
        every, flat = rows.flatten(0, 1), codes.flatten()
        part = every.new_full((len(flat),), 1 / len(flat))
        shares = sync.mean(torch.zeros_like(usage).index_add_(0, flat, part), batch.share)
        means = torch.zeros_like(sums).index_add_(0, flat, every / len(flat))
        usage.lerp_(shares, 1 - DECAY)
        sums.lerp_(sync.mean(means, batch.share), 1 - DECAY)

        count = len(codebook)
        unused = usage < (UNUSED / count if self.seen else 2.0)  # at first all begin anew
        fresh = self.candidates(rows, batch, sync, count)
        equal = torch.full_like(usage, 1 / count)
        usage.copy_(equal.where(unused, usage))
        sums.copy_((fresh / count).where(unused[:, None], sums))
        codebook.copy_(sums / usage[:, None])
        return (-torch.xlogy(shares, shares).sum()).exp()

    def candidates(self, rows: Tensor, batch: Batch, sync: Sync, count: int) -> Tensor:
        """Of features [N, T, dimensions] of the global batch so many, [count, dimensions]."""
        each = -(-count // batch.total)
        places = rng.integers(rng.fold(batch.keys, RESTARTS), rows.shape[1], (each,))
        mine = rows.gather(1, places[:, :, None].expand(-1, -1, rows.shape[2]))
        return sync.gather(mine).flatten(0, 1)[:count]
