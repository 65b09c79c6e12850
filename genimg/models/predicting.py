"""What networks share that see frames and predict those that follow."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

Beliefs = tuple[Tensor, ...]
"""Of latents: posterior mean and log variance, prior mean and log variance, each [N, T, ...]; empty
where there are none."""


class Predictor(nn.Module, ABC):
    """Frames [N, given, C, H, W] in [-1, 1] -> those that follow, [N, predicted, C, H, W].

    What comes out may lie a little beyond [-1, 1].

    latents: numbers that decide what each frame becomes, which are standard normals; 0: nothing
        is left to chance
    """

    latents: int = 0

    def __init__(self, given: int, predicted: int) -> None:
        super().__init__()
        self.given = given
        self.predicted = predicted

    @abstractmethod
    def forward(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise: [N, predicted * latents], where there are some."""

    def learn(self, frames: Tensor, told: Tensor, noise: Tensor | None) -> tuple[Tensor, Beliefs]:
        """Of whole clips [N, given + predicted, C, H, W] what it says of their last frames, as many
        as it learns from, and what it believed of their latents.

        told: bool [N, given + predicted], which frames it is shown when it predicts the next one,
            beside the given ones; where it is not, it goes by its own prediction. What predicts all
            frames at once sees no others.
        noise: [N, given + predicted - 1, latents], where there are some
        """
        return self(frames[:, : self.given]), ()
