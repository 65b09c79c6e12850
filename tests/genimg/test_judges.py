"""Inception as a judge: against torch-fidelity's, and files that are not its weights."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genimg import judges, rng
from genimg.errors import InputError
from genimg.judges import InceptionJudge
from genimg.judging import seen
from genimg.models.inception import Inception, resized


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file of random weights, with the names and shapes of torch-fidelity's."""
    draw, tensors = torch.Generator().manual_seed(0), OrderedDict()
    for name, tensor in Inception().state_dict().items():
        drawn = torch.rand(tensor.shape, generator=draw)
        if tensor.dim() == 4:
            drawn = (drawn - 0.5) * (24 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bias", "mean", "fc.weight")):
            drawn = (drawn - 0.5) / 5
        else:
            drawn = drawn + 0.5
        tensors[name] = drawn if tensor.is_floating_point() else tensor
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(tensors, path)
    return path


def test_it_sees_what_torch_fidelitys_sees(weights):
    judge = InceptionJudge.load(weights, "cpu")
    assert judge.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    images = rng.integers(torch.arange(3), 256, (3, 32, 32)).to(torch.uint8)
    found = seen(judge, images)
    # what release 0.4.0's FeatureExtractorInceptionV3 gives with these weights and images
    features = [
        [9.49810028, 0.76518601, 11.63916683, 0.0, 5.96116638, 13.59717751],
        [9.36832142, 0.75634968, 11.47378254, 0.0, 5.81699848, 13.50353050],
        [9.41219521, 0.79062104, 12.07426929, 0.0, 5.89926338, 13.48727894],
    ]
    unbiased = [
        [23.27387810, 7.87758732, -10.83417130, -1.88084984, -20.70259476],
        [22.72314644, 7.51511955, -10.46851349, -1.80215764, -19.97658157],
        [23.08439636, 7.82575607, -10.70330620, -1.73646939, -20.72588921],
    ]
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.features[:, ::400], torch.tensor(features), **near)
    means = torch.tensor([2.71476746, 2.64771986, 2.72731066])
    torch.testing.assert_close(found.features.mean(dim=1), means, **near)
    logits = judge.networks["classifier"].to_logits(found.features)
    torch.testing.assert_close(logits[:, ::250], torch.tensor(unbiased), **near)
    torch.testing.assert_close(found.probabilities, logits.softmax(dim=1))
    gray = [seen(judge, images[:1, :1].expand(-1, channels, -1, -1)) for channels in (1, 3)]
    assert torch.equal(gray[0].features, gray[1].features)


def test_images_are_resized_as_by_tensorflow_1():
    images = rng.uniform(torch.arange(2), (3, 5, 4))
    doubled = resized(images, 10)[..., ::2, :]  # lines of those that were there
    across = torch.from_numpy(
        np.apply_along_axis(
            lambda line: np.interp(np.arange(10) * 0.4, np.arange(4), line), 3, images.numpy()
        )
    )
    torch.testing.assert_close(doubled, across.float())
    assert torch.equal(resized(images[..., :4, :], 2), images[..., :4:2, ::2])  # nothing averaged


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: tensors.pop("fc.bias"), "fc.bias is nothing, not (1008,)"),
        (lambda tensors: tensors.update(more=torch.ones(2)), "more is (2,), not nothing"),
        (
            lambda tensors: tensors.update({"fc.weight": torch.ones(1000, 2048)}),
            "fc.weight is (1000, 2048), not (1008, 2048)",
        ),
    ],
)
def test_other_weights_are_refused_with_the_first_difference(tmp_path, spoil, message):
    tensors = {
        name: torch.zeros(()).expand(each.shape) for name, each in Inception().state_dict().items()
    }
    spoil(tensors)
    with pytest.raises(InputError) as error:
        judges.load(Inception(), tensors, tmp_path / "some.pth")
    assert message in str(error.value)
    assert "give torch-fidelity's weights-inception-2015-12-05-6726825d.pth" in str(error.value)


def test_what_is_no_file_of_tensors_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(InputError, match="no such file; give torch-fidelity's weights-incep"):
        InceptionJudge.load(path)
    for content in (b"", b"no pickle", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a file of PyTorch's tensors; give torch-fid"):
            InceptionJudge.load(path)
    for thing in ([1], {"a": "b"}, nn.Linear(1, 1)):  # the last is never unpickled
        torch.save(thing, path)
        with pytest.raises(InputError, match="not a file of PyTorch's tensors"):
            InceptionJudge.load(path)


@pytest.mark.parametrize(
    "pickled", [b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02cos\n", b"\x80\x02X"]
)
def test_damaged_pickles_are_refused_whatever_the_unpickler_makes_of_them(tmp_path, pickled):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickled)
    with pytest.raises(InputError, match="not a file of PyTorch's tensors"):
        InceptionJudge.load(path)


def test_tensors_without_names_are_refused(tmp_path):
    torch.save({0: torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="not a file of PyTorch's tensors"):
        InceptionJudge.load(tmp_path / "weights.pth")
