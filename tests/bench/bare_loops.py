"""Training loops written by hand: what somebody would write who has never heard of genimg.

They use genimg's network classes, so that the same thing is computed, and nothing else of its
training. Images lie in one uint8 tensor and are picked by a permutation. What makes such a loop
fast is here: fused Adam, channels last, bfloat16 where the hardware has it, on a GPU the pixels
there and cuDNN's fastest kernels. What costs time and
does not train is not: no logging, no synchronisation, no check of anything.
"""

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.classifier import Classifier as Network
from genimg.models.dcgan import Discriminator, Generator
from genimg.recipes.classifier import Classifier
from genimg.recipes.gan import GAN


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


def dcgan(recipe: GAN, pixels: Tensor, device: torch.device, bfloat16: bool) -> Iterator[None]:
    """One step of a GAN with R1 at each `next`; pixels: uint8 [N, C, S, S]."""
    model, loss, train, data = recipe.model, recipe.loss, recipe.train, recipe.data
    image, inside = (data.size, data.channels), (model.normalise, model.depth)
    generator = Generator(model.latent, model.width, *image, *inside)
    discriminator = Discriminator(model.width, *image, model.depth)
    generator.to(device, memory_format=torch.channels_last)
    discriminator.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(generator).requires_grad_(False)
    adam_g = torch.optim.Adam(generator.parameters(), train.lr, betas=(0.5, 0.99), fused=True)
    adam_d = torch.optim.Adam(discriminator.parameters(), train.lr, betas=(0.5, 0.99), fused=True)
    decay = 0.5 ** (train.batch_size / train.ema_half_life)

    for step, indices in enumerate(batches(pixels, train.batch_size)):
        penalise = step % loss.r1_every == 0
        real = floats(pixels[indices], device).requires_grad_(penalise)
        latents = torch.randn(train.batch_size, model.latent, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            fake = generator(latents)
            logits = discriminator(real)
            loss_d = F.softplus(-logits).mean() + F.softplus(discriminator(fake.detach())).mean()
        if penalise:
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            penalty = gradient.float().square().sum(dim=(1, 2, 3)).mean()
            loss_d = loss_d + 0.5 * loss.r1 * loss.r1_every * penalty
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()

        discriminator.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss_g = F.softplus(-discriminator(fake)).mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        follow(average, generator, decay)
        yield


def classifier(
    recipe: Classifier, pixels: Tensor, labels: Tensor, device: torch.device, bfloat16: bool
) -> Iterator[None]:
    """One step of cross-entropy at each `next`; labels: int64 [N]."""
    model, train = recipe.model, recipe.train
    network = Network(model.width, model.features, recipe.data.channels, len(model.classes))
    network.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    adam = torch.optim.Adam(network.parameters(), train.lr, betas=(0.9, 0.99), fused=True)
    decay = 0.5 ** (train.batch_size / train.ema_half_life)
    steps, warmup = train.images / train.batch_size, train.warmup / train.batch_size

    for step, indices in enumerate(batches(pixels, train.batch_size)):
        images, wanted = floats(pixels[indices], device), labels[indices].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), wanted)
        adam.zero_grad()
        loss.backward()
        if train.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
        rise = min(1, (step + 1) / (warmup + 1))
        adam.param_groups[0]["lr"] = train.lr * rise * (1 + math.cos(math.pi * step / steps)) / 2
        adam.step()
        follow(average, network, decay)
        yield
