"""A small convolutional classifier: the judge of the generators."""

import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.rows import Conv2d, Linear


class Classifier(nn.Module):
    """Images [N, channels, size, size] in [-1, 1] -> logits [N, classes].

    Three stages of two 3x3 convolutions with group normalisation, each followed by pooling, then
    a layer of `features` numbers: those that FID and similar metrics are computed on.
    """

    def __init__(self, width: int, features: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for stage in range(3):
            after = width * 2**stage
            layers += [*block(before, after), *block(after, after), nn.MaxPool2d(2)]
            before = after
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.to_features = Linear(4 * before, features)
        self.to_logits = Linear(features, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> the penultimate layer, float [N, features], non-negative."""
        return F.relu(self.to_features(self.body(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logits(self.features(images))


def block(before: int, after: int) -> list[nn.Module]:
    return [
        Conv2d(before, after, 3, padding=1, bias=False),
        nn.GroupNorm(min(8, after), after),
        nn.ReLU(inplace=True),
    ]
