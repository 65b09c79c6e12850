"""What the likelihood of images is under an autoencoder: bounds of it, and estimates."""

import math
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import rng
from genimg.contracts import Dataset, Rows
from genimg.inference import Inference, to_floats
from genimg.losses import Likelihood, gaussian_kl, gaussian_log_ratio
from genimg.metrics.fidelity import finite_psnr
from genimg.models.text import asked
from genimg.pixels import to_bytes_range
from genimg.recipes.autoencoders import autoencoder_in
from genimg.training.autoencoding import PIXELS, POSTERIOR, Binarise, binarised


def measured(
    inference: Inference,
    data: Dataset,
    chosen: np.ndarray,
    likelihood: Likelihood,
    binarise: Binarise,
    classes: int,
    importance: int,
) -> Tensor:
    """float64 [N, 5 + levels] of the images of a dataset at int64 indices [N], nats.

    Negative log likelihood with one posterior sample, of what is trained and of the values'
    probability; PSNR of the reconstruction from the posterior's mean, dB; log-likelihood, estimated
    by `importance` posterior samples (eq. 8, Burda et al. 2016), of both again; KL of each level.
    All workers together; alike on each.
    """
    share = inference.share(len(chosen))
    parts = []
    for piece in inference.pieces(share):
        numbers = torch.arange(piece.start, piece.stop)
        few = chosen[piece.start : piece.stop]
        keys = rng.fold(0, torch.from_numpy(few)).to(inference.device)
        stored = data.fetch(few, keys)
        rows = {"image": to_floats(stored["image"], inference.device)}
        if classes:
            labels = stored["label"].to(inference.device)
            rows["classes"] = F.one_hot(labels, classes).float()
        if "text" in stored:
            rows["text"] = stored["text"].long().to(inference.device)
        keys = rng.fold(0, numbers).to(inference.device)
        if binarise == "dynamic":
            rows["image"] = binarised(rows["image"], rng.fold(keys, PIXELS))
        parts.append(scores(inference, rows, keys, likelihood, importance))
    levels = parts[0].shape[1] if parts else 0
    # a worker whose share is empty has to say how many columns there are
    widest = int(inference.gather(torch.tensor([levels], device=inference.device)).max())
    nothing = torch.empty(0, widest, dtype=torch.float64, device=inference.device)
    return inference.gather(torch.cat([nothing, *parts]))


def scores(
    inference: Inference,
    rows: dict[str, Tensor],
    keys: Tensor,
    likelihood: Likelihood,
    importance: int,
) -> Tensor:
    """As `measured`, of images float32, perhaps classes or texts, with noise by keys int64 [N]."""
    network = autoencoder_in(inference.networks)

    def encode(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        seen = network.encode(rows["image"])
        classes = asked(network, cast(Rows, rows))
        latent = network.latents(seen, classes)
        mean = likelihood.mean(network.decode(latent, classes))
        return {"mean": mean, **{str(number): each for number, each in enumerate(seen)}}

    def weigh(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        seen = tuple(rows[str(number)] for number in range(count))
        made, levels = network.draw(seen, rows["noise"], asked(network, cast(Rows, rows)))
        told = (rows["image"], made.float(), network.log_sigma)
        rates = [gaussian_kl(*level[1:]).flatten(1).sum(dim=1) for level in levels]
        ratios = [gaussian_log_ratio(*level) for level in levels]
        return {
            "density": likelihood.nll(*told),
            "mass": likelihood.mass_nll(*told),
            "ratio": torch.stack(ratios).sum(dim=0),
            "kl": torch.stack(rates, dim=1),
        }

    made = inference.columns(encode, rows)
    fidelity = finite_psnr(to_bytes_range(made.pop("mean")), to_bytes_range(rows["image"]))
    count = len(made)
    first: dict[str, Tensor] = {}
    weights = torch.empty(0)
    for number in range(importance):
        own = keys if number == 0 else rng.fold(keys, POSTERIOR, number)
        noise = rng.normal(own, (network.latent,))
        found = inference.columns(weigh, rows | made | {"noise": noise})
        likely = torch.stack([found["density"], found["mass"]], dim=1)
        weight = (found["ratio"][:, None] - likely).double()
        first = first or found
        weights = torch.logaddexp(weights, weight) if number else weight
    columns = [first["density"].double(), first["mass"].double(), fidelity]
    both = (weights - math.log(importance)).unbind(dim=1)
    return torch.cat([torch.stack([*columns, *both], dim=1), first["kl"].double()], dim=1)


def metrics_of(scores: Tensor, dimensions: int, importance: int) -> dict[str, float]:
    """Means of what `measured` gives.

    elbo: nats an image, of the likelihood that is trained: the Gaussian's is a density over pixels
        in [-1, 1]
    bits_per_dimension: the same bound on the probability of the values, of which a density gains
        nothing by agreeing more closely than to a level
    kl: the part of both that the latents cost, nats an image; kl_1, ... of each of several levels,
        from the top
    psnr: of reconstructions from the posterior mean, dB
    log_likelihood, log_likelihood_bits: where importance is above 1, as elbo and
        bits_per_dimension, but estimated by so many samples, from below
    """
    density, mass, fidelity, likely, likely_mass, *levels = scores.mean(dim=0).tolist()
    bit = dimensions * math.log(2)
    kl = sum(levels)
    found = {
        "elbo": -density - kl,
        "bits_per_dimension": (mass + kl) / bit,
        "kl": kl,
        "psnr": fidelity,
    }
    if len(levels) > 1:
        found |= {f"kl_{number}": level for number, level in enumerate(levels, 1)}
    if importance > 1:
        found |= {"log_likelihood": likely, "log_likelihood_bits": -likely_mass / bit}
    return found
