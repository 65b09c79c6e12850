"""Flows: a network leads noise to images along straight paths, in few steps.

    genimg train flow --data scenes
    genimg train flow model.conditional=true data.channels=1 data.fit=pad --data MNIST_FOLDER
    genimg sample flow --label 7 --steps 4 --guidance 2 -o sevens.png
    genimg train flow model.text=true data.scenes=captioned data.combinations=seen --run painter
    genimg sample painter --text "a red striped star left of a blue disc"

The noise is the latent: a number for each pixel and channel.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Rows
from genimg.models.text import asked
from genimg.models.velocity import VelocityUNet
from genimg.ode import Slope, Solver, solve, unsolve
from genimg.recipe import Data
from genimg.recipes.synthesis import Evaluate, Synthesis
from genimg.recipes.told import ByText
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.flow_matching import FlowMatching, Times
from genimg.training.method import Part


class Model(ByText):
    width: int = Field(48, ge=8, multiple_of=8)
    """channels at the resolution at which it computes, doubling at each halving"""
    depth: int = Field(1, ge=0, le=4)
    """halvings; self-attention is at the lowest resolution"""
    blocks: int = Field(1, ge=1)
    """residual blocks at each resolution, down and up"""
    unshuffle: Literal[1, 2, 4] = 2
    """at which part of the images' resolution it computes: 2 a half"""


class Loss(Section):
    times: Times = "logit-normal"
    """how often each time of the path is learnt from: mostly its middle, or all alike (uniform)"""
    drop: float = Field(0.1, ge=0, lt=1)
    """probability with which a class or a text is not told, so that it can be insisted on"""


class Sampler(Section):
    steps: int = Field(8, ge=1, le=50)
    """steps from noise to image, unless asked for"""
    solver: Solver = "midpoint"
    """euler asks the network once a step, midpoint and heun twice, and err less for it"""
    guidance: float = Field(1.5, ge=0, le=20)
    """how strongly that is insisted on, unless asked for; 1: as learnt, at half the work"""


class Flow(Synthesis):
    explored: ClassVar[tuple[str, ...]] = ("sample", "interpolate", "vary", "decode")
    # no traverse: a latent is the noise of a pixel
    sought: ClassVar[tuple[str, ...]] = ("latent", "begun")

    model: Model = Model()
    loss: Loss = Loss()
    sampler: Sampler = Sampler()

    @model_validator(mode="after")
    def size_can_be_halved(self) -> Self:
        multiple = self.model.unshuffle * 2**self.model.depth
        if self.data.size % multiple:
            raise ValueError(
                f"data.size={self.data.size}: with model.unshuffle={self.model.unshuffle} and"
                f" model.depth={self.model.depth} {self.recipe} takes multiples of {multiple}"
            )
        return self

    @model_validator(mode="after")
    def guidance_knows_what_it_leads_away_from(self) -> Self:
        if self.model.text and not self.loss.drop:
            raise ValueError(
                "loss.drop=0: what is drawn of no text is never learnt then; give loss.drop=0.1"
            )
        if self.model.conditional and not self.loss.drop and self.sampler.guidance != 1:
            raise ValueError(
                f"sampler.guidance={self.sampler.guidance}: goes beyond what is drawn of no class,"
                " which with loss.drop=0 is never learnt; give sampler.guidance=1, or loss.drop=0.1"
            )
        return self

    def idle(self) -> Mapping[str, str]:
        if self.model.conditional or self.model.text:
            return {}
        why = "nothing is told, neither by model.conditional nor by model.text"
        return {"loss.drop": why, "sampler.guidance": why}

    @property
    def latent(self) -> int:
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, and of its noise."""
        return self.data.channels, self.data.size, self.data.size

    @property
    def steps(self) -> int:
        return self.sampler.steps

    @property
    def options(self) -> tuple[str, ...]:
        guided = (self.model.conditional or self.model.text) and self.loss.drop > 0
        return ("steps", "guidance") if guided else ("steps",)

    def velocity(self) -> nn.Module:
        model = self.model
        network = VelocityUNet(
            model.width,
            model.depth,
            model.blocks,
            model.unshuffle,
            self.data.channels,
            model.told,
            words=model.text,
        )
        return model.reading(network, every=True)

    def networks(self) -> dict[str, nn.Module]:
        return {"velocity": self.velocity()}

    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        def compute(rows: Rows) -> Rows:
            noise = rows["latent"].unflatten(1, self.shape)
            return {"image": self.led(networks, rows, noise, solve)}

        return compute

    def inverter(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        """By the way back: the noise that as many steps lead to the image, a step in each pass."""
        drawer = self.drawer(networks)

        def compute(rows: Rows) -> Rows:
            begun = int(rows["begun"][0])
            undo = partial(unsolve, begun=begun, most=1)
            so_far = rows["latent"].unflatten(1, self.shape)
            found = self.led(networks, rows, so_far, undo).flatten(1)
            if begun + 1 < self.steps_of(rows):
                return {"latent": found}
            return {"latent": found, **drawer({**rows, "latent": found})}

        return compute

    def steps_of(self, rows: Rows) -> int:
        """From noise to image, as a pass asks for it."""
        return int(rows["steps"][0]) if "steps" in rows else self.sampler.steps

    def led(
        self,
        networks: Mapping[str, nn.Module],
        rows: Rows,
        start: Tensor,
        along: Callable[[Slope, Tensor, int, Solver], Tensor],
    ) -> Tensor:
        """Where noise or images float32 [N, C, H, W] are led as the rows ask for it."""
        network, sampler = networks["velocity"], self.sampler
        classes = asked(network, rows)
        guidance = float(rows["guidance"][0]) if "guidance" in rows else sampler.guidance

        def slope(images: Tensor, time: float) -> Tensor:
            times = images.new_full((len(images),), time)
            towards: Tensor = network(images, times, classes).float()
            if classes is None or guidance == 1:
                return towards
            anywhere = network(images, times, torch.zeros_like(classes)).float()
            return torch.lerp(anywhere, towards, guidance)  # eq. 6, Ho & Salimans 2022

        start = start.contiguous(memory_format=torch.channels_last)
        return along(slope, start, self.steps_of(rows), sampler.solver)

    def method(self, device: torch.device) -> FlowMatching:
        return FlowMatching(
            Part(self.velocity(), betas=(0.9, 0.99)),
            classes=len(self.model.classes),
            times=self.loss.times,
            drop=self.loss.drop,
            train=self.train,
            device=device,
        )


def flow() -> Flow:
    """Rectified flow matching (Liu et al. 2023) with a U-Net: from noise to images in few steps."""
    return Flow(
        recipe="flow",
        data=Data(size=32, channels=3, holdout=2_000),
        evaluation=Evaluate(samples=1024),
        train=Train(
            images=1_000_000, batch_size=64, optimizer="muon", lr=4e-3, warmup=10_000,
            decay="cosine", ema_half_life=10_000, clip_norm=1.0, checkpoint_every=100_000,
        ),
    )  # fmt: skip
