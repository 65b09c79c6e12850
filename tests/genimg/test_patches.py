"""The discriminator of patches: what it takes, and what a logit sees."""

import pytest
import torch

from genimg.models.patches import PatchDiscriminator


@pytest.mark.parametrize("side", [(12, 12), (16, 40), (33, 47)])
def test_a_discriminator_takes_images_of_any_size(side):
    logits = PatchDiscriminator(3)(torch.zeros(2, 3, *side))
    assert logits.shape == (2, 1, side[0] // 8, side[1] // 8)


def test_a_logit_depends_on_a_patch_of_40_pixels():
    torch.manual_seed(0)
    network = PatchDiscriminator(1).eval()
    images = torch.randn(1, 1, 96, 96, requires_grad=True)
    network(images)[0, 0, 6, 6].backward()
    rows = images.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == 40
