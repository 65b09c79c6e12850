"""How long and how fast a training learns: its keys, its learning rate, its moving average."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from genimg.precision import Choice
from genimg.section import Section


class Train(Section):
    images: int = Field(ge=1)
    """how many images to train on, counted with repetition"""
    batch_size: int = Field(64, ge=1)
    """images a step, over all workers together"""
    optimizer: Literal["adam", "sgd", "muon"] = "adam"
    """adam; sgd with momentum; muon: orthogonal steps of weights, the last and biases by adam"""
    lr: float = Field(2e-4, gt=0)
    """learning rate of the optimizer, at its peak"""
    weight_decay: float = Field(0.0, ge=0)
    """part of the weights, times the rate, taken off a step; of sgd L2; not of biases and scales"""
    warmup: int = Field(0, ge=0)
    """images over which the learning rate rises from 0"""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate then falls to lr_end"""
    lr_end: float = Field(0.0, ge=0)
    """where that leads"""
    burn_in: float = Field(1.0, gt=0, le=1)
    """part of the training in which what changes does so; behind it all stays as it is then"""
    clip_norm: float | None = Field(None, gt=0)
    """largest norm of the gradient of all parameters of a network"""
    ema_half_life: int = Field(5_000, ge=0)
    """half-life of the moving average of weights and batch statistics, images; 0: no averaging"""
    seed: int = Field(0, ge=0, lt=2**63)
    """decides initial weights, order, augmentation, noise and latents"""
    precision: Choice = "auto"
    """autocast; auto takes bfloat16 where the hardware multiplies it natively"""
    compile: bool = False
    """torch.compile the networks: slower to start, faster to run on GPUs"""
    deterministic: bool = False
    """on GPUs, only kernels that repeat, so that resuming does, bit for bit; CPUs always do"""
    checkpoint_every: int = Field(50_000, ge=1)
    """images between checkpoints, each with an evaluation and a sample grid"""
    log_every: int = Field(2_000, ge=1)
    """images between two lines of the log, at least; fewer where they take longer than 8 s"""
    log_seconds: float = Field(1.0, ge=0)
    """seconds between two lines of the log, about and at least; 0: every log_every images"""
    keep: int = Field(2, ge=1)
    """newest checkpoints that a run keeps, besides the best one"""

    @model_validator(mode="after")
    def decays_end_below(self) -> Self:
        if self.lr_end and (self.decay == "constant" or self.lr_end > self.lr):
            raise ValueError(
                f"lr_end={self.lr_end}: is where a decay leads, from lr={self.lr} down; give"
                " decay=cosine or linear, and a smaller one"
            )
        return self


def learning_rate(train: Train, seen: int) -> float:
    """The rate for the step after `seen` images: warm-up, then the chosen decay to its end."""
    rate, done = train.lr, burnt_in(train, seen)
    if train.decay == "linear":
        rate += done * (train.lr_end - rate)
    elif train.decay == "cosine":
        rate = along(rate, train.lr_end, done)
    if seen < train.warmup:
        rate *= (seen + train.batch_size) / (train.warmup + train.batch_size)
    return rate


def burnt_in(train: Train, seen: int) -> float:
    """The part, 0 to 1, of what changes that lies behind after `seen` images."""
    return min(seen / (train.burn_in * train.images), 1.0)


def along(start: float, end: float | None, done: float) -> float:
    """Where half a cosine from start to end is; None: where it starts (Huang et al. 2024)."""
    if end is None:
        return start
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def average_decay(half_life: int, seen: int, step: int) -> float:
    """Decay of the EMA over `step` images; early on, the half-life is 5 % of the images seen.

    (The ramp-up of Karras et al. 2020, Training GANs with limited data.)
    """
    ramped = min(half_life, 0.05 * seen)
    return 0.5 ** (step / ramped) if ramped > 0 else 0.0
