"""Flow matching: a network learns the velocity that leads from noise to images, straight."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part, told, untold

NOISE, TIMES, DROPS = 1, 2, 3  # tags under which a batch's keys give these

Times = Literal["logit-normal", "uniform"]


class FlowMatching(Method):
    """Minimises the mean squared error of velocities on straight paths.

    Conditional flow matching (eq. 23, Lipman et al. 2023) of rectified flows (eq. 1, Liu et al.
    2023): at time t of its path from noise to an image x is (1 - t) noise + t image, and its
    velocity image - noise.

    velocity: x [N, C, H, W], times [N], classes [N, K] -> velocities [N, C, H, W]
    classes: K; the network is given which class an image is of, or if it has a reader what that
        reads in the image's text, and with a probability of `drop` zeros, so that it can be guided;
        0: it is given None, unless it reads
    times: uniform, or with a logit that is a standard normal: the middle of the path is the hardest
        (section 3.1, Esser et al. 2024)
    """

    def __init__(
        self, velocity: Part, classes: int, times: Times, drop: float,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"velocity": velocity}, train, device)
        self.velocity = self.compiled(velocity.network)
        self.classes = classes
        self.times = times
        self.drop = drop

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        images = batch.rows["image"]
        noise = rng.normal(rng.fold(batch.keys, NOISE), images.shape[1:])
        times = drawn_times(rng.fold(batch.keys, TIMES), self.times)
        with self.autocast:
            classes = self.told(batch)
            made = self.velocity(
                torch.lerp(noise, images, times[:, None, None, None]), times, classes
            )
        loss = F.mse_loss(made.float(), images - noise)
        self.step("velocity", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss}

    def told(self, batch: Batch) -> Tensor | None:
        """float32 [N, K] of each image, but where it is dropped."""
        every = told(self.networks["velocity"], batch, self.classes)
        return None if every is None else untold(every, rng.fold(batch.keys, DROPS), self.drop)


def drawn_times(keys: Tensor, kind: Times) -> Tensor:
    """float32 [N] in [0, 1], of keys int64 [N]."""
    return rng.uniform(keys) if kind == "uniform" else rng.normal(keys, ()).sigmoid()
