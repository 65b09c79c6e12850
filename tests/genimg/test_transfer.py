"""What the first worker has, all have: bit for bit, whatever its dtype, size and layout."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gang import gang
from safetensors.torch import load_file, save_file
from tiny_recipes import tiny

from genimg.contracts import Sync
from genimg.training.sync import Alone, Collective
from genimg.training.transfer import agree, announce, hollow, outline, restore_everywhere

CPU = torch.device("cpu")
TOLD = {"text": "ä\n", "list": [1, 0.1, None]}


@cache
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    odd = torch.tensor([-0.0, float("nan"), float("inf"), 1e-45])
    return {
        "odd": odd,
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False, True]),
        "none": torch.zeros(0),
        "bfloat16": odd.bfloat16(),
        "turned": torch.randn(3, 4, generator=generator).T,
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "large": torch.arange(7_000_001, dtype=torch.int32),
        "large, turned": torch.arange(7_000_000.0).view(2, -1).T,
        "large, channels last": torch.arange(7_168_000.0)
        .view(70, 100, 32, 32)
        .to(memory_format=torch.channels_last),
    }


def two_workers(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    sync = Collective()
    assert announce(TOLD if rank == 0 else None, sync, CPU) == TOLD
    assert announce(None, sync, CPU) is None
    method_that_goes_apart(rank, sync)
    state_that_only_the_first_has(rank, sync)
    mine = tensors()
    if rank == 1:
        for tensor in mine.values():
            tensor.zero_()
    sync.broadcast(mine.values())
    save_file({name: tensor.contiguous() for name, tensor in mine.items()}, folder / str(rank))
    dist.destroy_process_group()


def method_that_goes_apart(rank: int, sync: Sync) -> None:
    """What Muon makes, which rounds otherwise on another processor, comes together again."""
    for optimizer, together in (("muon", True), ("adam", False)):
        method = tiny("classifier", f"train.optimizer={optimizer}").method(CPU)
        weight = next(method.networks["classifier"].parameters()).detach()
        weight.fill_(1 + rank)
        agree(method, sync)
        assert bool((weight == 1).all()) is (together or rank == 0)


def state_that_only_the_first_has(rank: int, sync: Sync) -> None:
    method = tiny("dcgan", "loss.augment=[colour]", "loss.adaptive=0.6").method(CPU)
    assert method.state
    for tensor in method.state.values():
        tensor.fill_(3)
    snapshot = method.snapshot()
    for tensor in method.state.values():
        tensor.fill_(rank)
    restore_everywhere(method, snapshot if rank == 0 else None, sync)
    assert all((tensor == 3).all() for tensor in method.state.values())


@pytest.fixture(scope="module")
def received(tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = gang(two_workers, tmp_path_factory.mktemp("two"), 2)
    return load_file(folder / "1")


@pytest.mark.parametrize("name", tensors())
def test_the_second_worker_has_the_firsts_bits(received, name):
    expected = tensors()[name].contiguous()
    assert received[name].dtype == expected.dtype
    assert torch.equal(
        received[name].reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)
    )


def test_alone_nothing_changes():
    mine = torch.arange(3)
    Alone().broadcast([mine])
    assert mine.tolist() == [0, 1, 2]
    assert announce(TOLD, Alone(), CPU) == TOLD


def test_hollow_tensors_have_dtypes_and_shapes_and_take_no_memory():
    mine = {name: tensor for name, tensor in tensors().items() if tensor.numel()}
    for name, tensor in hollow(outline(mine)).items():
        assert (tensor.dtype, tensor.shape) == (mine[name].dtype, mine[name].shape)
        assert tensor.untyped_storage().nbytes() <= 8
