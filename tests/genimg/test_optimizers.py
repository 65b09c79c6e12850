"""Optimizers by name: Muon against PyTorch's and against SVD, the others against PyTorch's own."""

import pytest
import torch
from tiny_recipes import tiny
from torch import nn
from training_steps import lost_by_resuming

from genimg.schedule import Train
from genimg.training.optimizers import Muon, optimizer_of, orthogonalised

BETAS = (0.9, 0.99)
every_optimizer = pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])


def of(name: str, parameters: list[nn.Parameter], **more: float) -> torch.optim.Optimizer:
    train = Train(images=1, lr=0.1, optimizer=name, **more)
    return optimizer_of(train, parameters, 0.5, BETAS, torch.float32)


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def learn(optimizer: torch.optim.Optimizer, learning: list[nn.Parameter], steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in learning:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 9), (64, 576)])
def test_an_orthogonalised_matrix_has_the_directions_of_its_svd(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -1, shape[1]))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ orthogonalised(matrix) @ right.T
    lengths = values.diag()
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3
    torch.testing.assert_close(values, torch.diag(lengths), rtol=0, atol=1e-4)


def test_without_a_gradient_nothing_is_orthogonal_and_all_is_finite():
    assert orthogonalised(torch.zeros(3, 4)).eq(0).all()


def test_matrices_step_as_pytorchs_muon_does():
    matrix, last = parameters((16, 40), (2, 2))
    theirs = nn.Parameter(matrix.detach().clone())
    ours = Muon([matrix, last], 0.05, BETAS, 0.3, torch.bfloat16)
    expected = torch.optim.Muon(
        [theirs], 0.05, 0.3, BETAS[0], nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    learn(ours, [matrix])
    learn(expected, [theirs])
    torch.testing.assert_close(matrix, theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_steps_as_the_matrix_of_its_filters(layout):
    filters, last = parameters((6, 5, 3, 3), (2, 2))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    filters.data = filters.data.to(memory_format=layout)
    learn(of("muon", [filters, last], weight_decay=0.1), [filters])
    learn(of("muon", [matrix, last], weight_decay=0.1), [matrix])
    torch.testing.assert_close(filters.flatten(1), matrix, rtol=1e-4, atol=1e-5)


def test_the_last_weight_and_biases_learn_by_adam_beside_muon():
    learning = parameters((6, 5), (6,), (3, 6), (3,))
    same = [nn.Parameter(each.detach().clone()) for each in learning]
    learn(of("muon", learning, weight_decay=0.1), learning)
    learn(torch.optim.Adam(same, 0.05, BETAS), same)
    assert not torch.allclose(learning[0], same[0])
    for mine, theirs in zip(learning[1:], same[1:], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_begins_to_learn_later_steps_by_adam_as_if_the_others_had_not():
    """As the biases of a layer that has just grown."""
    learning = parameters((6, 5), (6,), (3, 6), (3,))
    same = [nn.Parameter(each.detach().clone()) for each in learning]
    ours, theirs = of("muon", learning), torch.optim.Adam(same, 0.05, BETAS)
    for optimizer, every in ((ours, learning), (theirs, same)):
        learn(optimizer, every[:2], steps=40)
        learn(optimizer, every)
    for one, other in zip(learning[1:], same[1:], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_adam_and_sgd_are_pytorchs_and_spare_biases_the_decay(decay):
    for name, kind, more in (
        ("adam", torch.optim.AdamW, {"betas": BETAS}),
        ("sgd", torch.optim.SGD, {"momentum": BETAS[0], "nesterov": True}),
    ):
        learning = parameters((6, 5), (6,))
        weight, bias = (nn.Parameter(each.detach().clone()) for each in learning)
        learn(of(name, learning, weight_decay=decay), learning)
        groups = [{"params": [weight], "weight_decay": decay}, {"params": [bias]}]
        learn(kind(groups, 0.05, weight_decay=0.0, **more), [weight, bias])
        torch.testing.assert_close(learning, [weight, bias])


@every_optimizer
@pytest.mark.parametrize("name", ["classifier", "dcgan", "conv-vae"])
def test_with_any_optimizer_training_goes_on_bit_for_bit(name, optimizer):
    keys = [f"train.optimizer={optimizer}", "train.weight_decay=0.1", "train.warmup=0"]
    assert lost_by_resuming(tiny(name, *keys), 2) == []
