"""A classifier that looks at whitened patches, which it need not learn to see: the better judge."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.classifier import Classifier
from genimg.models.rows import Conv2d, Linear

GROWTH = (1, 4, 4)  # channels of the stages, in widths
LEAST = 1e-4  # of the largest variance: what is below is taken for noise
AT_ONCE = 64  # images whose patches are in memory together


class Whitened(Classifier):
    """A whitening layer, three stages of two 3x3 convolutions, and the largest value of each map.

    The network of Jordan 2024 (94% on CIFAR-10 in 3.29 seconds on a single GPU, section 3). Its
    stages pool behind the first convolution, so that the second costs a quarter.

    width: channels of the first stage; those of the others, and so `features`, are 4 times as many
    patch: side of the patches that are whitened, pixels
    """

    def __init__(self, width: int, patch: int, channels: int, classes: int) -> None:
        super().__init__(channels)
        self.whitening = Whitening(channels, patch)
        before = self.whitening.out_channels
        stages: list[nn.Module] = []
        for growth in GROWTH:
            after = growth * width
            stages.append(stage(before, after))
            before = after
        self.stages = nn.Sequential(*stages)
        self.to_logits = Linear(before, classes)

    def features(self, images: Tensor) -> Tensor:
        return self.stages(F.relu(self.whitening(images))).amax(dim=(2, 3)).float()

    def maps(self, images: Tensor) -> list[Tensor]:
        """As Classifier's, behind pooling: half, a quarter and an eighth of the image's sides."""
        seen: list[Tensor] = []
        images = F.relu(self.whitening(images))
        for each in self.stages:
            assert isinstance(each, nn.Sequential)
            maps = each[:-1](images)
            seen.append(maps)
            images = F.relu(maps)
        return seen


class Whitening(Conv2d):
    """A convolution that makes patches' values uncorrelated and of variance 1; and minus those.

    Its filters are the principal directions of training images' patches over their standard
    deviations (section 3.2, Jordan 2024, after Page 2019). They are found once and never learnt.
    Its bias is learnt, from where what it gives has mean 0.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__(channels, 2 * channels * patch**2, patch)
        first = self.weight.detach()
        del self.weight  # no parameter: optimizers know nothing of it
        self.register_buffer("weight", first)

    @torch.no_grad()
    def fit(self, images: Tensor, mean: Callable[[Tensor], Tensor]) -> None:
        """Find the filters for this worker's share of images [N, C, H, W].

        mean: a tensor -> its share-weighted mean over the workers
        """
        moments = mean(moments_of(images, self.weight.shape[-1]))
        average = moments[-1, :-1]
        covariance = moments[:-1, :-1] - average.outer(average)
        variances, directions = torch.linalg.eigh(covariance)  # ascending; in columns
        largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
        least = LEAST * variances[-1] + 1e-12  # black images have no contrast at all
        filters = (directions * largest.sign() / (variances.clamp_min(0) + least).sqrt()).T
        filters = torch.cat([filters, -filters])
        self.weight.copy_(filters.view(self.weight.shape))
        self.bias.copy_(-filters @ average)


def moments_of(images: Tensor, patch: int) -> Tensor:
    """float64 [D + 1, D + 1]: means of the products of patches' D values, and of a last one, 1."""
    total: Tensor | float = 0.0
    for few in images.split(AT_ONCE):
        patches = few.unfold(2, patch, 1).unfold(3, patch, 1).permute(0, 2, 3, 1, 4, 5)
        values = F.pad(patches.flatten(3).flatten(0, 2).double(), (0, 1), value=1.0)
        total = total + values.T @ values / len(values) * (len(few) / len(images))
    assert isinstance(total, Tensor)
    return total


class Halve(nn.Module):
    """The largest value of each 2 x 2; sides of a single pixel stay."""

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[-2:]
        return F.max_pool2d(maps, (min(2, height), min(2, width)))


def smallest(side: int, patch: int) -> int:
    """Side of the last stage's maps of images of a side, pixels."""
    return max(1, (side - patch + 1) // 2 ** len(GROWTH))


def stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2d(before, after, 3, padding=1, bias=False),
        Halve(),
        BatchNorm2d(after),
        nn.ReLU(inplace=True),
        Conv2d(after, after, 3, padding=1, bias=False),
        BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
