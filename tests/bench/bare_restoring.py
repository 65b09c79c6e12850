"""Restorers' training loops written by hand, as those of bare_loops; and one as it is published."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from bare_loops import descend, floats
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genimg.recipes.denoiser import DnCNNDenoiser
from genimg.recipes.restoring import Restoring


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
