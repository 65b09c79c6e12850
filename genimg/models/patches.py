"""A discriminator of patches: convolutions, strided, with spectral normalisation."""

from torch import Tensor, nn

from genimg.models.spectral import SpectralConv2d

WIDTH = 32  # channels at full resolution, doubling at each halving
HALVINGS = 3


class PatchDiscriminator(nn.Module):
    """Images [N, channels, H, W] in [-1, 1], of 8 pixels or more -> logits [N, 1, H / 8, W / 8].

    Each is of a patch of 40 pixels (PatchGAN, Isola et al. 2017): restorers are to learn textures,
    which are small, and what the image shows is in their input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [SpectralConv2d(channels, WIDTH, 3, padding=1), nn.LeakyReLU(0.2)]
        for i in range(HALVINGS):
            before = WIDTH * 2**i
            layers += [SpectralConv2d(before, 2 * before, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.to_logits = SpectralConv2d(WIDTH * 2**HALVINGS, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logits(self.body(images))
