"""The loader: one order whatever the number of workers, exact resumption, and what batches hold."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genimg.contracts import Batch, Stored
from genimg.data.augment import augment
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.data.storage import Ragged
from genimg.errors import InputError

CPU = torch.device("cpu")
META = torch.device("meta")  # stands in for a GPU


BOTH = ("image", "label")
DRAWN = (*BOTH, "mask", "boxes", "text")


def unchanged(stored: Stored, keys: torch.Tensor, seen: torch.Tensor) -> Stored:
    return stored


def numbered(count: int) -> Images:
    """Image i is filled with i; label i."""
    pixels = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Images({"image": pixels.contiguous(), "label": torch.arange(count)})


def loader(dataset=None, **options) -> Loader:
    defaults = {"batch_size": 6, "seed": 1, "device": CPU, "augment": unchanged}
    return Loader(numbered(20) if dataset is None else dataset, **(defaults | options))


def first(count: int, loader: Loader) -> list[Batch]:
    stream = iter(loader)
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.rows["image"], other.rows["image"])
        and torch.equal(one.rows["label"], other.rows["label"])
        and torch.equal(one.keys, other.keys)
        and one.total == other.total
    )


def together(parts: list[Batch]) -> Batch:
    """The global batch of the workers' parts."""
    rows = {name: torch.cat([part.rows[name] for part in parts]) for name in ("image", "label")}
    keys = torch.cat([part.keys for part in parts])
    return Batch(rows, keys, parts[0].total)


@given(
    world=st.sampled_from([1, 2, 3, 5]),
    batch_size=st.integers(5, 40),
    seen=st.integers(0, 10**9),
    seed=st.integers(0, 2**40),
)
def test_the_workers_parts_are_the_single_workers_batch(world, batch_size, seen, seed):
    whole = loader(batch_size=batch_size, seed=seed).batch(seen)
    parts = [
        loader(batch_size=batch_size, seed=seed, rank=rank, world=world).batch(seen)
        for rank in range(world)
    ]
    assert same(together(parts), whole)
    assert sum(part.share for part in parts) == pytest.approx(1)
    sizes = [len(part.keys) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@given(st.integers(1, 60), st.integers(0, 500))
def test_any_number_of_workers_up_to_one_an_image_shares_a_batch_without_loss(batch_size, more):
    world = 1 + more % batch_size
    shares = [loader(batch_size=batch_size, rank=rank, world=world).share for rank in range(world)]
    assert [i for share in shares for i in range(share.start, share.stop)] == [*range(batch_size)]
    assert all(share.stop > share.start for share in shares)


@given(parts=st.integers(1, 12), group=st.integers(1, 5), more=st.integers(0, 20))
def test_what_learns_together_is_one_workers(parts, group, more):
    world, batch_size = 1 + more % parts, parts * group
    shares = [
        loader(batch_size=batch_size, together=group, rank=rank, world=world).share
        for rank in range(world)
    ]
    assert [i for share in shares for i in range(share.start, share.stop)] == [*range(batch_size)]
    assert all(share.stop > share.start and share.start % group == 0 for share in shares)
    with pytest.raises(InputError, match=f"use at most {parts} workers"):
        loader(batch_size=batch_size, together=group, world=parts + 1)


def test_more_workers_than_images_in_a_batch_are_refused():
    with pytest.raises(InputError, match=r"train\.batch_size=6 cannot be shared by 7 workers"):
        loader(world=7)


@pytest.mark.parametrize("dataset", [numbered(20), Scenes(16, 3, BOTH)], ids=["memory", "scenes"])
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2), (2, 3)])
def test_resumed_at_any_batch_it_goes_on_as_if_it_had_not_stopped(dataset, rank, world):
    def flipping(**options) -> Loader:
        return loader(
            dataset,
            rank=rank,
            world=world,
            augment=lambda stored, keys, seen: augment(stored, keys, "dihedral"),
            **options,
        )

    whole = first(7, flipping())
    for step in range(7):
        rest = first(7 - step, flipping(seen=6 * step))
        assert all(same(a, b) for a, b in zip(whole[step:], rest, strict=True))


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_prefetching_changes_nothing(prefetch):
    expected = [loader().batch(seen) for seen in range(0, 60, 6)]
    got = first(10, loader(prefetch=prefetch))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    labels = (
        torch.cat([batch.rows["label"] for batch in first(20, loader())]).reshape(6, 20).tolist()
    )
    assert all(sorted(epoch) == list(range(20)) for epoch in labels)
    assert len({tuple(epoch) for epoch in labels}) == 6


def test_a_batch_may_exceed_the_data():
    (batch,) = first(1, loader(batch_size=50))
    counts = np.bincount(batch.rows["label"].numpy(), minlength=20)
    assert len(batch.rows["image"]) == 50
    assert set(counts.tolist()) == {2, 3}


def ragged(device: torch.device) -> Images:
    whole = [np.full((3, 9 + i, 12), i, np.uint8) for i in range(6)]
    masks = Ragged.joined([each[:1] for each in whole], 8)
    boxes = torch.tensor([1.0, 2, 3, 9, 9]).expand(6, 1, 5)
    stored = {"label": torch.arange(6), "mask": masks, "boxes": boxes}
    return Images({"image": Ragged.joined(whole, 8), **stored}).to(device)


@pytest.mark.parametrize(
    "dataset",
    [Scenes(16, 3, DRAWN), Scenes(16, 1, DRAWN), ragged(CPU), ragged(META), numbered(20).to(META)],
    ids=["scenes", "gray", "ragged on the cpu", "ragged", "square"],
)
def test_nothing_is_read_back_from_the_device_while_a_batch_is_made(dataset):
    """Which would make the thread wait for a GPU. Of a tensor on `meta` nothing can be read."""
    with pytest.raises(NotImplementedError):
        torch.zeros(1, device=META).cpu()
    parts = Loader(
        dataset,
        batch_size=6,
        seed=1,
        device=META,
        augment=lambda stored, keys, seen: augment(stored, keys, "dihedral"),
    )
    for batch in first(2, parts):
        assert {rows.device for rows in (*batch.rows.values(), batch.keys)} == {META}
        assert {len(rows) for rows in (*batch.rows.values(), batch.keys)} == {6}
        assert tuple(batch.rows) == dataset.columns


def test_data_on_the_cpu_gets_its_keys_there():
    """And the same crops as data on the device gets by keys on the device."""
    given = []

    class Asked(Images):
        def fetch(self, indices, keys):
            given.append(keys)
            return super().fetch(indices, keys)

    data = ragged(CPU)
    data.__class__ = Asked
    expected = loader(data).batch(0)
    loader(data, device=META).batch(0)
    assert torch.equal(*given)
    assert expected.rows["image"].shape == (6, 3, 8, 8)


def test_another_seed_gives_another_order_and_other_keys():
    one, other = loader(seed=1).batch(0), loader(seed=2).batch(0)
    assert not torch.equal(one.rows["label"], other.rows["label"])
    assert not set(one.keys.tolist()) & set(other.keys.tolist())


def test_every_image_of_a_training_has_a_key_of_its_own():
    keys = torch.cat([loader(batch_size=500).batch(seen).keys for seen in range(0, 20_000, 500)])
    assert len(keys.unique()) == 20_000


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_in_channels_last_float32_from_minus_one_to_one(channels):
    pixels = torch.zeros(4, channels, 8, 8, dtype=torch.uint8)
    pixels[1] = 255
    pixels[2] = 51
    batch = loader(Images({"image": pixels}), batch_size=4).batch(0)
    assert batch.rows["image"].dtype == torch.float32
    assert batch.rows["image"].is_contiguous(memory_format=torch.channels_last)
    assert "label" not in batch.rows
    values = sorted(batch.rows["image"].mean(dim=(1, 2, 3)).tolist())
    assert values == pytest.approx([-1, -1, -0.6, 1], abs=1e-6)
    assert batch.rows["image"].max() <= 1
    assert batch.rows["image"].min() == -1


def test_the_data_itself_is_left_as_it_is():
    data = numbered(20)
    before = data.fetch(np.arange(20), torch.arange(20))["image"].clone()
    flipped = loader(data, augment=lambda stored, keys, seen: augment(stored, keys, "flip"))
    for batch in first(3, flipped):
        batch.rows["image"].zero_()
    assert torch.equal(data.fetch(np.arange(20), torch.arange(20))["image"], before)


def test_an_error_in_the_background_reaches_the_one_who_asks():
    def broken(stored: Stored, keys: torch.Tensor, seen: torch.Tensor) -> Stored:
        raise InputError("this batch is no good")

    with pytest.raises(InputError, match="this batch is no good"):
        first(1, loader(augment=broken))
