"""Small convolutional classifiers: the judges of the generators."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.group_norm import GroupNorm
from genimg.models.rows import Conv2d, Linear

STAGES = 3
LAYERS = 7  # of a stage: two blocks, and pooling


class Classifier(nn.Module, ABC):
    """Images [N, channels, size, size] in [-1, 1] -> logits [N, classes].

    channels: of the images
    to_logits: its last layer
    """

    to_logits: Linear

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> the penultimate layer, float [N, features], non-negative.

        FID and similar metrics are computed on these.
        """

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Images [N, C, H, W], of 4 pixels or more -> what each stage sees in them.

        Its last convolution's features before the activation, as ESRGAN takes VGG's (section 3.3,
        Wang et al. 2018): [N, maps, height, width] of each.
        """

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logits(self.features(images))


class Plain(Classifier):
    """Three stages of two 3x3 convolutions with group normalisation, each followed by pooling.

    Then a dense layer of `features` numbers.
    """

    def __init__(self, width: int, features: int, channels: int, classes: int) -> None:
        super().__init__(channels)
        layers: list[nn.Module] = []
        before = channels
        for stage in range(STAGES):
            after = width * 2**stage
            layers += [*block(before, after), *block(after, after), nn.MaxPool2d(2)]
            before = after
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.to_features = Linear(4 * before, features)
        self.to_logits = Linear(features, classes)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.to_features(self.body(images)))

    def maps(self, images: Tensor) -> list[Tensor]:
        """As Classifier's, before pooling: [N, width * 2^i, H // 2^i, W // 2^i] of stage i."""
        seen: list[Tensor] = []
        for start in range(0, STAGES * LAYERS, LAYERS):
            maps = self.body[start : start + LAYERS - 2](images)
            seen.append(maps)
            images = F.max_pool2d(F.relu(maps), 2)
        return seen


def block(before: int, after: int) -> list[nn.Module]:
    return [
        Conv2d(before, after, 3, padding=1, bias=False),
        GroupNorm(min(8, after), after),
        nn.ReLU(inplace=True),
    ]
