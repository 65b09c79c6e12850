"""Training loops written by hand: what somebody would write who has never heard of genimg.

They use genimg's network classes and its Muon, so that the same thing is computed, and nothing
else of its training. Images lie in one uint8 tensor and are picked by a permutation. What makes
such a loop fast is here: fused Adam, channels last, bfloat16 where the hardware has it, on a GPU
the pixels there and cuDNN's fastest kernels. What costs time and does not train is not: no
logging, no synchronisation, no check of anything.
"""

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from genimg.models.dcgan import Discriminator, Generator
from genimg.recipes.classifier import Classifier
from genimg.recipes.denoiser import DnCNNDenoiser
from genimg.recipes.gan import GAN
from genimg.recipes.restoring import Restoring
from genimg.schedule import Train
from genimg.training.optimizers import Muon


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
    train = recipe.train
    network = recipe.classifier().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    muon = Muon(list(network.parameters()), train.lr, (0.9, 0.99), train.weight_decay, dtype)

    for step, indices in enumerate(batches(pixels, train.batch_size)):
        images, wanted = floats(pixels[indices], device), labels[indices].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), wanted)
        descend(train, step, loss, network, average, muon)
        yield


def restorer(
    recipe: Restoring, photos: Tensor, device: torch.device, bfloat16: bool
) -> Iterator[None]:
    """One step of restoration at each `next`; photos: uint8 [N, C, H, W], whence patches come."""
    train, size = recipe.train, recipe.data.size
    network = recipe.restorer().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).requires_grad_(False)
    adam = torch.optim.Adam(network.parameters(), train.lr, betas=(0.9, 0.99), fused=True)
    across = torch.arange(size, device=device)
    count, channels = photos.shape[:2]
    plane = torch.arange(channels, device=device)[None, :, None, None]

    step = 0
    while True:
        chosen = torch.randint(count, (train.batch_size, 1, 1, 1), device=device)
        top, left = (
            torch.randint(side - size + 1, (train.batch_size, 1), device=device) + across
            for side in photos.shape[2:]
        )
        patches = photos[chosen, plane, top[:, None, :, None], left[:, None, None]]
        turned = torch.randint(8, (3,)).tolist()  # a whole batch alike: cheaper than ours
        patches = patches.rot90(turned[0] % 4, (2, 3))
        clean = floats(patches.flip(3) if turned[1] % 2 else patches, device)
        keys = torch.randint(2**62, (train.batch_size,), device=device)
        damaged, maps = recipe.degraded(clean, keys)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            restored = network(damaged, maps).float()
        loss = recipe.loss_of(restored, clean)
        descend(train, step, loss, network, average, adam)
        step += 1
        yield


class NoisyPatches(Dataset[tuple[Tensor, Tensor]]):
    """(noisy, clean) float32 [C, S, S] of patches that were cut beforehand, uint8."""

    def __init__(self, patches: Tensor, sigma: float) -> None:
        self.patches = patches
        self.sigma = sigma

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean = self.patches[index].float() / 255
        return clean + torch.randn(clean.shape) * (self.sigma / 255), clean


def public_dncnn(recipe: DnCNNDenoiser, photos: Tensor, device: torch.device) -> Iterator[None]:
    """DnCNN's training as it is commonly published: one step at each `next`."""
    size, train = recipe.data.size, recipe.train
    patches = photos.unfold(2, size, 10).unfold(3, size, 10).permute(0, 2, 3, 1, 4, 5)
    patches = patches.reshape(-1, photos.shape[1], size, size)[:60_000].contiguous()
    network = recipe.restorer().to(device)
    adam = torch.optim.Adam(network.parameters(), train.lr)
    loader = DataLoader(
        NoisyPatches(patches, 25), train.batch_size, shuffle=True, num_workers=4, drop_last=True
    )
    nothing = torch.empty(train.batch_size, 0, size, size, device=device)
    while True:
        for noisy, clean in loader:
            noisy, clean = noisy.to(device), clean.to(device)
            adam.zero_grad()
            loss = F.mse_loss(network(noisy, nothing), clean, reduction="sum") / 2
            loss.backward()
            adam.step()
            yield
