"""Large images in bands of rows: what each network gives, and what its layers keep."""

import pytest
import torch
from test_restoring_networks import busy, every_network, inputs
from torch import nn

from genimg.inference import prepared
from genimg.models import bands
from genimg.models.bands import Residual, through


@every_network
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_an_image_in_bands_of_rows_gives_what_it_gives_at_once(name, precision, monkeypatch):
    ready = prepared(busy(name).requires_grad_(False), precision)
    images, maps = inputs(ready, 2 * 97, 2 * 11)
    given = images.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        whole = ready(images, maps)
        monkeypatch.setattr(bands, "BAND", 1)
        in_bands = ready(images, maps)
    assert torch.equal(images, given)
    scale = max(1, float(whole.abs().max()))
    close = 1e-5 if precision == "float32" else 1e-2
    torch.testing.assert_close(in_bands / scale, whole / scale, rtol=0, atol=close)


class Doubled(Residual):
    def added(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)


@pytest.mark.parametrize("ours", [False, True])
@torch.no_grad()
def test_what_is_not_ours_is_left_as_it_is_and_what_is_takes_no_more_memory(ours, monkeypatch):
    x = torch.randn(1, 3, 150, 7, generator=torch.Generator().manual_seed(0))
    given, layers = x.clone(), [nn.Identity(), Doubled(), nn.ReLU(), Doubled()]
    whole = through(layers, x)
    monkeypatch.setattr(bands, "BAND", 1)
    made = through(layers, x, ours=ours)
    torch.testing.assert_close(made, whole)
    assert torch.equal(x, given) is not ours
    assert (made.data_ptr() == x.data_ptr()) is ours
