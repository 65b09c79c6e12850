"""Training loops written by hand: what somebody would write who has never heard of genimg.

They train genimg's networks by its losses and its Muon, so that the same thing is computed, and
use nothing else of its training: a loop for each method, of whatever recipe (LOOPS; of restorers
in bare_restoring.py, of translators in bare_translating.py, of stylists in bare_styling.py). Images
lie in one uint8 tensor and are picked by a permutation. What makes such a loop fast is here: fused
Adam, channels last, bfloat16 where the hardware has it, on a GPU the pixels there and cuDNN's
fastest kernels. What costs time and does not train is not: no logging, no synchronisation, no check
of anything.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg import losses
from genimg.data.grids import FRAMES
from genimg.models.centers import STRIDE
from genimg.schedule import Train
from genimg.training.adversarial import Adversarial
from genimg.training.autoencoding import Autoencoding
from genimg.training.detection import Detection, distance_at, targets
from genimg.training.flow_matching import FlowMatching
from genimg.training.game import LOSSES
from genimg.training.method import Method
from genimg.training.optimizers import Muon
from genimg.training.prediction import Prediction
from genimg.training.quantisation import Quantisation
from genimg.training.recognition import Recognition
from genimg.training.segmentation import Segmentation

Networks = Mapping[str, nn.Module]  # in training, on their device, channels last
Columns = Mapping[str, Tensor]  # as they are stored: `image` uint8 [N, C, S, S]
Loop = Callable[[Any, Networks, Columns, torch.device, bool], Iterator[None]]


def batches(pixels: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Endless int64 [batch_size]: permutation after permutation, without what is left over."""
    count = len(pixels)
    while True:
        order = torch.randperm(count, device=pixels.device)
        yield from order[: count - count % batch_size].split(batch_size)


def floats(pixels: Tensor, device: torch.device) -> Tensor:
    images = pixels.to(device).to(torch.float32, memory_format=torch.channels_last)
    return images.mul_(2 / 255).sub_(1)


def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of the weights."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def descend(
    train: Train,
    step: int,
    loss: Tensor,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """The end of a step: backward, clipped, at the rate that the schedule has there."""
    steps, warmup = train.images / train.batch_size, train.warmup / train.batch_size
    optimizer.zero_grad()
    loss.backward()
    if train.clip_norm:
        nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
    rise = min(1, (step + 1) / (warmup + 1))
    for group in optimizer.param_groups:
        group["lr"] = train.lr * rise * (1 + math.cos(math.pi * step / steps)) / 2
    optimizer.step()
    follow(average, network, 0.5 ** (train.batch_size / train.ema_half_life))


def adversarial(
    recipe: Any, networks: Networks, data: Columns, device: torch.device, bfloat16: bool
) -> Iterator[None]:
    """A GAN of any loss and penalties: the discriminator's step and, as often as it moves, the
    generator's."""
    generator: Any = networks["generator"]
    discriminator: Any = networks["discriminator"]
    loss, train, classes = recipe.loss, recipe.train, len(recipe.model.classes)
    average = copy.deepcopy(generator).requires_grad_(False)
    betas, rate = (loss.beta1, loss.beta2), train.lr * loss.discriminator_rate
    adam_g = torch.optim.Adam(generator.parameters(), train.lr, betas, fused=True)
    adam_d = torch.optim.Adam(discriminator.parameters(), rate, betas, fused=True)
    decay = 0.5 ** (train.batch_size / train.ema_half_life)
    cost_of_telling, cost_of_drawing = LOSSES[loss.kind]

    def logits_of(images: Tensor, wanted: Tensor | None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return discriminator(images, wanted).float()

    for step, indices in enumerate(batches(data["image"], train.batch_size)):
        real = floats(data["image"][indices], device)
        if hasattr(generator, "grow"):
            for network in (generator, discriminator):
                network.grow(step * train.batch_size)
            real = discriminator.faded(real)
        wanted = F.one_hot(data["label"][indices], classes).float() if classes else None
        latents = torch.randn(train.batch_size, recipe.latent, device=device)
        moves = (step + 1) % loss.critic_steps == 0
        with (
            torch.set_grad_enabled(moves),
            torch.autocast(device.type, torch.bfloat16, enabled=bfloat16),
        ):
            fake = generator(latents, wanted)
        lazily = step % loss.r1_every == 0
        penalised = [
            (images.requires_grad_(lazily and gamma > 0), gamma)
            for images, gamma in ((real, loss.r1), (fake.detach(), loss.r2))
        ]
        logits = [logits_of(images, wanted) for images, _ in penalised]
        loss_d = cost_of_telling(*logits)
        for (images, gamma), each in zip(penalised, logits, strict=True):
            if images.requires_grad:
                (gradient,) = torch.autograd.grad(each.sum(), images, create_graph=True)
                square = gradient.float().square().sum(dim=(1, 2, 3)).mean()
                loss_d = loss_d + 0.5 * gamma * loss.r1_every * square
        if loss.gradient_penalty:
            part = torch.rand(len(real), 1, 1, 1, device=device)
            between = torch.lerp(fake.detach().float(), real, part).requires_grad_()
            outputs = logits_of(between, wanted)
            (gradient,) = torch.autograd.grad(outputs.sum(), between, create_graph=True)
            norm = gradient.float().flatten(1).norm(dim=1)
            loss_d = loss_d + loss.gradient_penalty * (norm - 1).square().mean()
        if loss.drift:
            loss_d = loss_d + loss.drift * logits[0].square().mean()
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        if loss.weight_clip:
            weights = list(discriminator.parameters())
            with torch.no_grad():
                torch._foreach_clamp_min_(weights, -loss.weight_clip)
                torch._foreach_clamp_max_(weights, loss.weight_clip)

        if moves:
            discriminator.requires_grad_(False)
            shown = [real.detach(), fake] if loss.paired else [fake]
            loss_g = cost_of_drawing(*(logits_of(images, wanted) for images in shown))
            if loss.orthogonal:
                filters = (each for each in generator.parameters() if each.dim() == 4)
                loss_g = loss_g + loss.orthogonal * losses.orthogonal_penalty(filters)
            adam_g.zero_grad()
            loss_g.backward()
            adam_g.step()
            discriminator.requires_grad_(True)
        follow(average, generator, decay)
        yield


def alone(cost: Callable[..., Callable[[nn.Module, Tensor, Columns], Tensor]]) -> Loop:
    """The loop of a method that trains one network.

    cost(recipe, autocast): a function of the network, images float32 and what is beside them
    """

    def loop(
        recipe: Any, networks: Networks, data: Columns, device: torch.device, bfloat16: bool
    ) -> Iterator[None]:
        train, (network,) = recipe.train, networks.values()
        average = copy.deepcopy(network).requires_grad_(False)
        optimizer: torch.optim.Optimizer
        if train.optimizer == "muon":
            dtype = torch.bfloat16 if bfloat16 else torch.float32
            every = list(network.parameters())
            optimizer = Muon(every, train.lr, (0.9, 0.99), train.weight_decay, dtype)
        else:
            optimizer = torch.optim.Adam(network.parameters(), train.lr, (0.9, 0.99), fused=True)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
        loss_of = cost(recipe, autocast)
        for step, indices in enumerate(batches(data["image"], train.batch_size)):
            rows = {name: column[indices].to(device) for name, column in data.items()}
            loss = loss_of(network, floats(rows["image"], device), rows)
            descend(train, step, loss, network, average, optimizer)
            yield

    return loop


def recognition(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    def loss_of(network: nn.Module, images: Tensor, rows: Columns) -> Tensor:
        with autocast:
            logits = network(images)
        return F.cross_entropy(logits.float(), rows["label"])

    return loss_of


def segmentation(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    def loss_of(network: nn.Module, images: Tensor, rows: Columns) -> Tensor:
        mask = rows["mask"][:, 0].long()
        with autocast:
            logits = network(images).float()
        loss = losses.pixel_cross_entropy(logits, mask)
        return (
            loss + recipe.loss.dice * losses.soft_dice(logits, mask) if recipe.loss.dice else loss
        )

    return loss_of


def detection(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    def loss_of(network: nn.Module, images: Tensor, rows: Columns) -> Tensor:
        with autocast:
            heat, sides, offset = (maps.float() for maps in network(images))
        shape = (heat.shape[2], heat.shape[3])
        wanted = targets(rows["boxes"], heat.shape[1], shape, STRIDE)
        return (
            losses.heatmap_focal(heat, wanted.heat)
            + recipe.loss.sides * distance_at(sides, wanted.sides, wanted)
            + recipe.loss.offset * distance_at(offset, wanted.offset, wanted)
        )

    return loss_of


def flow_matching(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    classes, loss = len(recipe.model.classes), recipe.loss

    def loss_of(network: nn.Module, images: Tensor, rows: Columns) -> Tensor:
        noise, told = torch.randn_like(images), None
        drawn = torch.rand if loss.times == "uniform" else torch.randn
        times = drawn(len(images), device=images.device)
        times = times if loss.times == "uniform" else times.sigmoid()
        if classes:
            kept = torch.rand(len(images), 1, device=images.device) >= loss.drop
            told = F.one_hot(rows["label"], classes) * kept.float()
        with autocast:
            made = network(torch.lerp(noise, images, times[:, None, None, None]), times, told)
        return F.mse_loss(made.float(), images - noise)

    return loss_of


def prediction(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    count = recipe.data.given + recipe.data.predicted

    def loss_of(network: Any, images: Tensor, rows: Columns) -> Tensor:
        clips = rows["frames"].unflatten(1, (FRAMES, -1))[:, :count].float() * (2 / 255) - 1
        shown = torch.ones(len(clips), count, dtype=torch.bool, device=clips.device)
        noise = None
        if network.latents:
            noise = torch.randn(len(clips), count - 1, network.latents, device=clips.device)
        with autocast:
            made, beliefs = network.learn(clips, shown, noise)
        error = F.mse_loss(made.float(), clips[:, -made.shape[1] :])
        if not beliefs:
            return error
        nats = losses.gaussian_kl(*(each.float() for each in beliefs)).flatten(2).sum(2)
        return error + recipe.loss.kl * nats.mean()

    return loss_of


def autoencoding(recipe: Any, autocast: Any) -> Callable[..., Tensor]:
    wanted, likelihood = recipe.loss, recipe.likelihood
    count = wanted.importance

    def loss_of(network: Any, images: Tensor, rows: Columns) -> Tensor:
        with autocast:
            seen = network.encode(images)
            if count > 1:
                seen = tuple(each.repeat_interleave(count, dim=0) for each in seen)
                images = images.repeat_interleave(count, dim=0)
            noise = torch.randn(len(images), network.latent, device=images.device)
            told = None
            if "text" in rows:
                told = network.reader(rows["text"].long())
                kept = torch.rand(len(told), device=told.device) >= wanted.drop
                told = told * kept.view(-1, *[1] * (told.dim() - 1))
            made, levels = network.draw(seen, noise, told)
        made = made.float()
        levels = [[each.float() for each in level] for level in levels]
        log_sigma = network.log_sigma
        if likelihood.scaled:
            log_sigma = 0.5 * (images - likelihood.mean(made)).square().mean().log()
            network.log_sigma.lerp_(log_sigma.detach(), 0.01)
        nll = likelihood.nll(images, made, log_sigma)
        if count > 1:
            ratio = sum(losses.gaussian_log_ratio(*level) for level in levels)
            cost = -losses.importance_bound((ratio - nll).unflatten(0, (-1, count))).mean()
        else:
            kls = [losses.gaussian_kl(*level[1:]) for level in levels]
            rate = torch.cat([kl.reshape(*kl.shape[:2], -1).sum(2).mean(0) for kl in kls])
            cost = nll.mean() + wanted.beta * rate.clamp_min(wanted.free_bits).sum()
        return cost / images[0].numel()

    return loss_of


def quantisation(
    recipe: Any, networks: Networks, data: Columns, device: torch.device, bfloat16: bool
) -> Iterator[None]:
    """A VQ-VAE whose codes follow running means, and a prior of the codes."""
    autoencoder: Any = networks["autoencoder"]
    train = recipe.train
    codebook, usage, sums = autoencoder.codebook, autoencoder.usage, autoencoder.sums
    both = [
        (each, copy.deepcopy(each).requires_grad_(False),
         torch.optim.Adam(each.parameters(), train.lr, (0.9, 0.99), fused=True))
        for each in (autoencoder, networks["prior"])
    ]  # fmt: skip
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    for step, indices in enumerate(batches(data["image"], train.batch_size)):
        images = floats(data["image"][indices], device)
        with autocast:
            features = autoencoder.encode(images).float()
        codes = autoencoder.nearest(features)
        near = autoencoder.features(codes)
        with autocast:
            made = autoencoder.decode(features + (near - features).detach())
        loss = F.mse_loss(made.float(), images)
        loss = loss + recipe.loss.commitment * F.mse_loss(features, near)
        descend(train, step, loss, *both[0])
        with torch.no_grad():
            rows, flat = features.flatten(2).transpose(1, 2).flatten(0, 1), codes.flatten()
            usage.lerp_(torch.bincount(flat, minlength=len(usage)) / len(flat), 0.01)
            sums.lerp_(torch.zeros_like(sums).index_add_(0, flat, rows / len(flat)), 0.01)
            codebook.copy_(sums / usage.clamp_min(1e-6)[:, None])
        with autocast:
            logits = networks["prior"](codes, None)
        nats = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
        descend(train, step, nats, *both[1])
        yield


LOOPS: dict[type[Method], Loop] = {
    Adversarial: adversarial,
    Autoencoding: alone(autoencoding),
    Detection: alone(detection),
    FlowMatching: alone(flow_matching),
    Prediction: alone(prediction),
    Quantisation: quantisation,
    Recognition: alone(recognition),
    Segmentation: alone(segmentation),
}
"""By method: one step at each `next`, of these networks on these columns, in bfloat16 or not."""
