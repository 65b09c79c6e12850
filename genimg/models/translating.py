"""Networks that turn images of one kind into another: pix2pix's and CycleGAN's generators."""

import torch
from torch import Tensor, nn

from genimg.models.bands import through
from genimg.models.denoising import Block
from genimg.models.restoring import RestoringNetwork, receptive_field
from genimg.models.rows import Conv2d
from genimg.models.unet import Trunk


class TranslatingUNet(RestoringNetwork):
    """A U-Net whose result depends on the image by its features alone (pix2pix, Isola et al. 2017).

    Images [N, channels, H, W] in [-1, 1] and condition maps [N, maps, H, W] -> images in [-1, 1].

    Unlike the paper's it has pairs of 3x3 convolutions at each resolution, and no dropout: of one
    image there is one translation (by dropout theirs hardly varied, section 3.1).
    """

    def __init__(self, width: int, depth: int, channels: int, maps: int) -> None:
        super().__init__(channels, maps)
        self.trunk = Trunk(channels + maps, width, depth)
        self.tail = Conv2d(width, channels, 1)
        self.stride = self.trunk.stride
        levels = [(2**level, 2) for level in range(depth)]
        self.receptive_field = receptive_field(*levels, (self.stride, 2), *levels[::-1])

    def restore(self, known: Tensor) -> Tensor:
        return torch.tanh(self.tail(self.trunk(known)).float())


class TranslatingResNet(RestoringNetwork):
    """Residual blocks at a part of the resolution (CycleGAN, Zhu et al. 2017, section 4).

    Images [N, channels, H, W] in [-1, 1] and condition maps [N, maps, H, W] -> images. A
    convolution 7x7, `depth` halvings that double the channels, `blocks` residual blocks, as many
    doublings, and a convolution 7x7 (after Johnson et al. 2016).

    Unlike the paper's network it has no instance normalisation, by which a pixel would depend on
    the whole image: tiles give what the whole gives, and light and dark stay apart. In its place
    blocks are nearly the identity at first. What it predicts is added to the image, and so it
    starts as the identity.
    """

    def __init__(self, width: int, depth: int, blocks: int, channels: int, maps: int) -> None:
        super().__init__(channels, maps)
        widths = [width * 2**level for level in range(depth + 1)]
        self.head = nn.Sequential(Conv2d(channels + maps, width, 7, padding=3), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(Conv2d(upper, 2 * upper, 2, stride=2), nn.ReLU()) for upper in widths[:-1]
        )
        self.blocks = nn.Sequential(*(Block(widths[-1]) for _ in range(blocks)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(2 * upper, upper, 2, stride=2), nn.ReLU())
            for upper in widths[:-1]
        )
        self.tail = Conv2d(width, channels, 7, padding=3)
        for parameter in self.tail.parameters():  # start as the identity
            nn.init.zeros_(parameter)
        self.stride = 2**depth
        self.receptive_field = receptive_field((1, 3), (self.stride, 2 * blocks), (1, 3))

    def restore(self, known: Tensor) -> Tensor:
        features = self.head(known)
        for down in self.down:
            features = down(features)
        features = through(self.blocks, features, ours=True)
        for up in reversed(self.up):
            features = up(features)
        return known[:, : self.channels] + self.tail(features)
