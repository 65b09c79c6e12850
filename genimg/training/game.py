"""The rules of the game between a generator and a discriminator, as keys of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from genimg import losses
from genimg.section import Section
from genimg.training.differentiable import Augmentation

Kind = Literal["logistic", "minimax", "least-squares", "hinge", "wasserstein", "relativistic"]
Function = Callable[..., Tensor]
LOSSES: dict[Kind, tuple[Function, Function]] = {
    "logistic": (losses.discriminator_logistic, losses.generator_nonsaturating),
    "minimax": (losses.discriminator_logistic, losses.generator_minimax),
    "least-squares": (losses.discriminator_least_squares, losses.generator_least_squares),
    "hinge": (losses.discriminator_hinge, losses.generator_wasserstein),
    "wasserstein": (losses.critic_wasserstein, losses.generator_wasserstein),
    "relativistic": (losses.discriminator_relativistic, losses.generator_relativistic),
}
"""Of the discriminator and of the generator."""
LABELLED: frozenset[Kind] = frozenset({"logistic", "minimax", "least-squares"})
"""Those by which an image has a label, which can be smoothed."""
SIGNED: frozenset[Kind] = frozenset({"logistic", "minimax", "hinge"})
"""Those by which the sign of a logit says whether an image is taken for a real one."""


class Game(Section):
    kind: Kind = "logistic"
    """logistic does not saturate, minimax does; relativistic: of a real and a generated image"""
    r1: float = Field(0.1, ge=0)
    """gamma of the R1 penalty, at real images; 0 turns it off"""
    r1_end: float | None = Field(None, ge=0)
    """r1 behind train.burn_in, to where it goes along half a cosine; null: it stays"""
    r2: float = Field(0.0, ge=0)
    """likewise of R2, at generated images"""
    r2_end: float | None = Field(None, ge=0)
    """likewise r2 behind train.burn_in"""
    r1_every: int = Field(4, ge=1)
    """steps between penalties R1 and R2 (lazy regularisation)"""
    gradient_penalty: float = Field(0.0, ge=0)
    """weight of the penalty on gradient norms other than 1, between real and generated images"""
    drift: float = Field(0.0, ge=0)
    """weight of the squared logits of real images, which keeps a critic near 0; 0.001 in ProGAN"""
    weight_clip: float = Field(0.0, ge=0)
    """largest absolute weight of the discriminator, as WGAN's critic has one; 0: any"""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """taken off the label 1 of real images (one-sided label smoothing), of losses with labels"""
    pack: int = Field(1, ge=1)
    """images that the discriminator judges together (PacGAN), against few modes; 2 in its paper"""
    augment: tuple[Augmentation, ...] = ()
    """what befalls all images that the discriminator sees (DiffAugment); for few images"""
    probability: float = Field(1.0, ge=0, le=1)
    """with which each of these befalls an image"""
    probability_end: float | None = Field(None, ge=0, le=1)
    """probability behind train.burn_in, to where it goes along half a cosine; null: it stays"""
    adaptive: float = Field(0.0, ge=0, lt=1)
    """it follows (ADA): more often where the mean sign of real logits is above this; 0.6; 0: off"""
    critic_steps: int = Field(1, ge=1)
    """steps of the discriminator for one of the generator, each on images of its own"""
    feature_matching: float = Field(0.0, ge=0)
    """weight, in the generator's loss, of features whose means differ from those of real images"""
    drop: float = Field(0.1, gt=0, lt=1)
    """probability with which a text is not told, so that images can be drawn of none"""
    style_mixing: float = Field(0.0, ge=0, le=1)
    """share of images of two latents, the second's styles from some layer on; 0.9 in StyleGAN"""
    orthogonal: float = Field(0.0, ge=0)
    """weight of the penalty on filters of the generator that are alike; 1e-4 is BigGAN's"""

    @property
    def paired(self) -> bool:
        """Whether the generator's loss too is of real images."""
        return self.kind == "relativistic"

    def losses(self) -> tuple[Function, Function]:
        """Of the discriminator: logits of real and of generated images -> scalar.

        Of the generator: those of generated images, before them, where `paired`, those of real
        ones -> scalar.
        """
        discriminator, generator = LOSSES[self.kind]
        if self.smoothing:
            discriminator = partial(discriminator, smoothing=self.smoothing)
        return discriminator, generator

    @model_validator(mode="after")
    def labels_are_there_to_be_smoothed(self) -> Self:
        if self.smoothing and self.kind not in LABELLED:
            raise ValueError(
                f"smoothing={self.smoothing}: a {self.kind} loss has no labels to be smoothed;"
                f" use kind={', '.join(sorted(LABELLED))}"
            )
        return self

    @model_validator(mode="after")
    def critics_are_bounded_once(self) -> Self:
        if self.weight_clip and self.gradient_penalty:
            raise ValueError(
                f"weight_clip={self.weight_clip}: gradient_penalty={self.gradient_penalty} bounds"
                " the critic already, in place of clipping; set one of them to 0"
            )
        if self.drift and self.kind == "relativistic":
            raise ValueError(
                f"drift={self.drift}: a relativistic loss is of differences, of which none drifts"
                " more than another; leave it out"
            )
        return self

    @model_validator(mode="after")
    def probabilities_are_of_augmentations(self) -> Self:
        chosen = self.probability != 1 or self.probability_end is not None
        if not self.augment and (chosen or self.adaptive):
            key = "probability" if self.probability_end is None else "probability_end"
            key = "adaptive" if self.adaptive else key
            raise ValueError(
                f"{key}={getattr(self, key)}: there is nothing that it is the probability of; give"
                " augment=[colour,translation,cutout]"
            )
        if self.adaptive and chosen:
            raise ValueError(
                f"adaptive={self.adaptive}: decides the probability by itself, from 0 on; leave"
                " probability and probability_end out"
            )
        if self.adaptive and self.kind not in SIGNED:
            raise ValueError(
                f"adaptive={self.adaptive}: follows the sign of logits, by which a {self.kind} loss"
                f" tells nothing; use kind={', '.join(sorted(SIGNED))}, or probability_end"
            )
        return self
