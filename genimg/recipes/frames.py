"""Predictors of frames: they see some, and say those that follow.

genimg train conv-mixer data.bounce=true data.channels=1 data.size=64 --data MNIST_FOLDER
genimg animate clip.gif -m mover --frames 20 -o longer.gif
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.data.columns import COLUMNS
from genimg.data.grids import FRAMES
from genimg.inference import Inference, latents
from genimg.metrics.fidelity import WINDOW, ssim
from genimg.metrics.motion import constant_velocity, copy_last
from genimg.models.conv_mixer import ConvMixer
from genimg.models.frame_vae import FrameVAE
from genimg.models.predicting import Predictor
from genimg.models.recurrent import Recurrent
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Part
from genimg.training.prediction import Prediction

WHO = ("", "_copy_last", "_constant_velocity")  # who predicts: the model, and beside it
MEASURES = ("mse", "mae", "ssim")
HORIZONS = (1, 5, 10)  # frames ahead, at which errors are told apart
SHOWN = 4  # clips of a preview


class Clips(Data):
    given: int = Field(10, ge=1, lt=FRAMES)
    """frames that a prediction goes by"""
    predicted: int = Field(10, ge=1, lt=FRAMES)
    """frames that follow them, which are predicted"""

    @model_validator(mode="after")
    def clips_have_as_many(self) -> Self:
        if self.given + self.predicted > FRAMES:
            raise ValueError(
                f"given={self.given} and predicted={self.predicted}: clips have {FRAMES} frames;"
                " give fewer"
            )
        return self


class ConvMixerModel(Section):
    network: Literal["conv-mixer"] = "conv-mixer"
    """decides which of the other keys there are"""
    width: int = Field(64, ge=8, multiple_of=8)
    """features of a frame; between encoder and decoder there are four times as many channels"""
    blocks: int = Field(6, ge=1)
    """blocks between encoder and decoder"""
    kernel: Literal[3, 5, 7, 9] = 7
    """side of the convolutions of single channels, of patches"""
    patch: Literal[1, 2, 4] = 4
    """side of the squares of pixels that it computes with"""


class RecurrentModel(Section):
    width: int = Field(64, ge=8)
    """channels of each layer's memory"""
    layers: int = Field(2, ge=1)
    """layers of memory, one above the other"""
    kernel: Literal[3, 5, 7] = 3
    """side of the convolutions, of patches"""
    patch: Literal[1, 2, 4] = 4
    """side of the squares of pixels that it computes with"""


class ConvLSTMModel(RecurrentModel):
    network: Literal["conv-lstm"] = "conv-lstm"
    """decides which of the other keys there are"""


class PredRNNModel(RecurrentModel):
    network: Literal["predrnn"] = "predrnn"
    """decides which of the other keys there are"""


class FrameVAEModel(RecurrentModel):
    network: Literal["frame-vae"] = "frame-vae"
    """decides which of the other keys there are"""
    planes: int = Field(1, ge=1)
    """latents of each patch of a frame"""


AnyModel = ConvMixerModel | ConvLSTMModel | PredRNNModel | FrameVAEModel
Model = Annotated[AnyModel, Field(discriminator="network")]


class Loss(Section):
    sampling: float = Field(0.0, ge=0, le=1)
    """part of the training in which it is shown true frames, ever fewer, in place of its own"""
    kl: float = Field(0.0, ge=0)
    """weight of what latents cost, nats a frame, of frame-vae"""
    hidden: float = Field(0.0, ge=0, lt=1)
    """part of the clips whose given frames are hidden, so that frame-vae can also begin a clip"""


class Evaluate(Section):
    images: int = Field(500, ge=1)
    """held-out clips, at most"""


class FramePredictor(Recipe):
    wants: ClassVar[tuple[str, ...]] = ("image", "frames")
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("mse", "min")

    data: Clips = Clips()
    model: Model = ConvMixerModel()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def frames_can_be_judged(self) -> Self:
        if self.data.size <= WINDOW:
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes {WINDOW + 1} or more; its frames"
                f" are judged by SSIM, whose window is {WINDOW} pixels wide"
            )
        return self

    @model_validator(mode="after")
    def what_is_predicted_is_seen_again(self) -> Self:
        if self.loss.sampling and isinstance(self.model, ConvMixerModel):
            raise ValueError(
                f"loss.sampling={self.loss.sampling}: with model.network=conv-mixer all frames are"
                " predicted at once, and none of them is ever shown; give loss.sampling=0"
            )
        return self

    @model_validator(mode="after")
    def latents_cost_where_there_are_some(self) -> Self:
        for key in ("kl", "hidden"):
            value = getattr(self.loss, key)
            if value and not isinstance(self.model, FrameVAEModel):
                raise ValueError(
                    f"loss.{key}={value}: with model.network={self.model.network} there are no"
                    f" latents; give loss.{key}=0"
                )
        return self

    def predictor(self) -> Predictor:
        data, model = self.data, self.model
        if isinstance(model, ConvMixerModel):
            return ConvMixer(
                data.given, data.predicted, data.channels,
                model.width, model.blocks, model.kernel, model.patch,
            )  # fmt: skip
        if isinstance(model, FrameVAEModel):
            return FrameVAE(
                data.given, data.predicted, data.channels, data.size,
                model.width, model.layers, model.kernel, model.patch, model.planes,
            )  # fmt: skip
        return Recurrent(
            data.given, data.predicted, data.channels,
            model.network, model.width, model.layers, model.kernel, model.patch,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        return {"predictor": self.predictor()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        predictor = networks["predictor"]
        assert isinstance(predictor, Predictor)
        drawn = predictor.latents * self.data.predicted

        def compute(rows: Rows) -> Rows:
            return {"frames": predictor(rows["frames"], rows.get("latent")).clamp(-1, 1)}

        ability = Ability(
            compute,
            self.data.channels,
            ("frames", "latent") if drawn else ("frames",),
            frozenset({"seed"} if drawn else ()),
            latent=drawn,
            side=self.data.size,
            fit=self.data.fit,
            frames=(self.data.given, self.data.predicted),
            begins=bool(drawn and self.loss.hidden),
            alone=True,
        )
        return {"animate": ability}

    def method(self, device: torch.device) -> Prediction:
        data = self.data
        part = Part(self.predictor(), betas=(0.9, 0.99))
        loss = self.loss
        return Prediction(
            part,
            data.given,
            data.predicted,
            loss.sampling,
            loss.kl,
            loss.hidden,
            self.train,
            device,
        )

    # how it is judged

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Of the frames that follow, means over clips and frames: mse and mae, summed over a
        frame's pixels, values in [0, 1]; ssim. Beside them those of the last frame again and again
        (`_copy_last`), and of what goes on as it moves (`_constant_velocity`)."""
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        shape = len(WHO), len(MEASURES), self.data.predicted
        parts = [torch.empty(0, *shape, dtype=torch.float64, device=inference.device)]
        for piece in inference.pieces(share):
            parts.append(self.scores(inference, data, chosen[piece.start : piece.stop]))
        mean = inference.gather(torch.cat(parts)).mean(dim=0).cpu()
        told = {
            f"{measure}{who}": mean[i, j].mean().item()
            for i, who in enumerate(WHO)
            for j, measure in enumerate(MEASURES)
        }
        ahead = [number for number in HORIZONS if number <= self.data.predicted]
        return told | {
            f"mse{who}_at_{number}": mean[i, 0, number - 1].item()
            for i, who in enumerate(WHO)
            for number in ahead
        }

    def scores(self, inference: Inference, data: Dataset, indices: np.ndarray) -> Tensor:
        """float64 [N, WHO, MEASURES, predicted] of clips at int64 `indices`."""
        given, truth = self.clips(inference, data, indices)
        count = self.data.predicted
        guesses = (
            self.followed(inference, given, indices),
            copy_last(given, count),
            constant_velocity(given, count),
        )
        return torch.stack([measured(guess, truth) for guess in guesses], dim=1)

    def clips(
        self, inference: Inference, data: Dataset, indices: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """(frames that are given, those that follow), [N, T, C, H, W], on the device."""
        stored = data.fetch(indices, torch.from_numpy(indices).to(data.device or inference.device))
        frames = COLUMNS["frames"].ready(stored["frames"].to(inference.device))
        given = self.data.given
        return frames[:, :given], frames[:, given : given + self.data.predicted]

    def followed(self, inference: Inference, given: Tensor, indices: np.ndarray) -> Tensor:
        """The frames that it predicts of clips at int64 `indices`, which are the seeds, too."""
        ability = self.abilities(inference.networks)["animate"]
        rows: Rows = {"frames": given}
        if ability.latent:
            seeds = torch.from_numpy(indices).to(inference.device)
            rows["latent"] = latents(seeds, ability.latent)
        most = max(1, inference.most // given.shape[1])
        return inference.rows(ability.compute, rows, most)["frames"]

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: compared with the frames that follow",
            "method": f"{self.data.given} frames are given, {self.data.predicted} follow; squared"
            " and absolute errors of values in [0, 1], summed over a frame's pixels and channels;"
            " SSIM of bytes; means over frames and clips; where it draws, of one future each",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """A row of a clip's frames, and beneath it what the model says of those that follow."""
        chosen = data.choose(SHOWN)
        given, truth = self.clips(inference, data, chosen)
        guess = self.followed(inference, given, chosen)
        nothing = torch.full_like(given, -1)
        pairs = ((given, truth), (nothing, guess))
        rows = torch.stack([torch.cat(pair, dim=1) for pair in pairs], dim=1)
        return rows.flatten(0, 2), rows.shape[2]


def measured(guess: Tensor, truth: Tensor) -> Tensor:
    """float64 [N, MEASURES, T] of frames [N, T, C, H, W] in [-1, 1]."""
    errors = (guess.double() - truth.double()).flatten(2) / 2
    a, b = (to_bytes_range(each).flatten(0, 1) for each in (guess, truth))
    similar = ssim(a, b).unflatten(0, truth.shape[:2])
    return torch.stack([errors.square().sum(dim=2), errors.abs().sum(dim=2), similar], dim=1)


def conv_mixer() -> FramePredictor:
    """Ten frames in, the next ten out at once, by convolutions (SimVP with ConvMixer's blocks)."""
    return FramePredictor(
        recipe="conv-mixer",
        data=Clips(size=32, channels=3, holdout=1_000),
        train=Train(
            images=400_000, batch_size=16, lr=1e-3, warmup=2_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip


def conv_lstm() -> FramePredictor:
    """Frame by frame, by layers of memory (Shi et al. 2015), with scheduled sampling."""
    return FramePredictor(
        recipe="conv-lstm",
        data=Clips(size=32, channels=3, holdout=1_000),
        model=ConvLSTMModel(),
        loss=Loss(sampling=0.4),
        train=Train(
            images=100_000, batch_size=16, lr=1e-3, warmup=2_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip


def predrnn() -> FramePredictor:
    """As conv-lstm, with a memory that goes through all layers (PredRNN, Wang et al. 2017)."""
    return conv_lstm().model_copy(update={"recipe": "predrnn", "model": PredRNNModel()})


def frame_vae() -> FramePredictor:
    """Frame by frame, drawn: another seed, another future (SVG with a learned prior, 2018)."""
    loss = Loss(sampling=0.4, kl=1e-5, hidden=0.1)
    return conv_lstm().model_copy(
        update={"recipe": "frame-vae", "model": FrameVAEModel(), "loss": loss}
    )
