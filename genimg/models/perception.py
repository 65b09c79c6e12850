"""What a classifier sees in images, for losses that compare them by it."""

import torch
from torch import Tensor, nn

from genimg.models.classifier import Classifier

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Perception(nn.Module):
    """Images [N, 1 or 3, H, W] in [-1, 1], of 4 pixels or more -> a classifier's feature maps.

    The images are brought to the channels that it takes. It is frozen and in evaluation mode:
    gradients reach the images alone.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.classifier.maps(with_channels(images, self.classifier.channels))


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Gray images [N, 1, H, W] of colour ones, or colour images [N, 3, H, W] of gray ones."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
