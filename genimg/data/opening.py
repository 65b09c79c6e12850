"""One call from the name of a data set to a dataset: scenes, shards, or images in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from genimg.contracts import Splittable
from genimg.data import placed
from genimg.data.bouncing import LENGTH, TEST, TRAINED_ON, Bouncing, side_of
from genimg.data.captioned import Captioned
from genimg.data.choice import fitting_holdout, refuse_holdout
from genimg.data.columns import COLUMNS, refuse_missing
from genimg.data.listing import PAIRS
from genimg.data.loading import load_images, numbered
from genimg.data.machine import Memory
from genimg.data.memory import Images
from genimg.data.placed import Placed
from genimg.data.remote import is_remote
from genimg.data.room import local_workers, refuse_too_large
from genimg.data.scenes import DRAWN, Scenes
from genimg.data.sources import Source, Split, is_parquet, open_source
from genimg.data.stacked import Stacked
from genimg.data.unpaired import KINDS, Unpaired, refuse_division, refuse_kinds
from genimg.errors import InputError
from genimg.images import BrokenImage
from genimg.texts import vocabulary_of

if TYPE_CHECKING:
    from genimg.data.parquet import Shards
    from genimg.recipe import Data

SCENES = "scenes"


class Told(NamedTuple):
    """What data tells of itself before any of its images is decoded.

    classes: names of the classes that columns count, label's and those of the wanted ones; words
        of texts, the most frequent first
    shares:  of the training images, of each class of labels, if these are wanted; of many shards
             some stand for all. Empty: all alike
    """

    classes: Mapping[str, tuple[str, ...]]
    shares: tuple[float, ...] = ()


def told_by(
    data: Data,
    wants: tuple[str, ...],
    copies: int = 1,
    memory: Memory | None = None,
    fewest: int = 1,
    warn: Callable[[str], None] | None = None,
) -> Told:
    """What recipes have to know of their data.

    Raises InputError where the data cannot be trained on, for want of a column or otherwise.
    Decodes no image: what a command calls to refuse bad data before anything starts. Where the
    classes of masks or boxes have no names they are numbered, for which these are all read.

    copies: processes on this machine that will hold the data, if it is held in memory; 0 where
    they are on others. memory: this machine's, if not given. fewest: images that have to be held
    out. warn(text) is told where that leaves fewer for the training.
    """
    if data.of_gray:
        refuse_others(data, wants)
        names = told_by(layer(data), of_each(data), copies, memory).classes.get("label", ())
        if not data.place:
            return Told({})
        placed.refuse_few(names, data.combinations)
        return Told({"text": placed.words_of(names)})
    if data.source == SCENES:
        refuse_missing(SCENES, DRAWN, wants)
        return Told((Captioned if data.scenes == "captioned" else Scenes).classes)
    path = Path(data.source)
    if not is_remote(data.source) and not path.exists() and get_close_matches(path.name, [SCENES]):
        raise InputError(f"{path}: no such file or folder; did you mean {SCENES!r}?")
    found: Shards | Source
    streamed = is_parquet(data.source)
    of_kinds = "other" in wants and not streamed  # in shards it is a column
    if of_kinds:
        wants, fewest = KINDS, max(2, fewest)
    if streamed:
        found = open_shards(data, wants, "train")
    else:
        found = open_source(data.source, columns=wants)
        refuse_pairs(data, wants, found)
        if copies:
            refuse_too_large(data, wants, found, copies, memory)
    refuse_holdout(data.holdout, len(found), data.source, fewest)
    if warn and 2 * data.holdout > len(found) and data.holdout > fewest:
        fitting = fitting_holdout(len(found), fewest)
        warn(
            f"data.holdout={data.holdout}: {len(found) - data.holdout} of {len(found)} images are"
            f" left to train on; hold out fewer, as data.holdout={fitting}"
        )
    classes = dict(found.classes)
    for name in wants:
        if COLUMNS[name].classed and name not in classes:
            if streamed:
                classes[name] = open_shards(data, wants, "all").numbered(name)
            else:
                classes[name] = numbered([open_source(data.source, "all", wants)], name)
    if "text" in wants:
        if streamed:
            texts = open_shards(data, wants, "train").texts()
        else:
            texts = texts_of(open_source(data.source, columns=wants))
        classes["text"] = vocabulary_of(texts)
    labels = found.labels if "label" in wants else None
    if labels is None:
        return Told(classes)
    if of_kinds:
        refuse_kinds(data.source, classes["label"])
        refuse_division(labels, classes["label"], data.holdout)
        return Told({})
    return Told(classes, frequencies(np.bincount(labels, minlength=len(classes["label"]))))


def texts_of(source: Source) -> Iterator[str]:
    """Those of all images; what cannot be read comes to light when it is loaded."""
    for index in range(len(source)):
        with suppress(BrokenImage):
            yield source.read(index, "text")


def frequencies(counts: np.ndarray) -> tuple[float, ...]:
    """Of int64 [K] images in each class; empty where there are as many in each."""
    if (counts == counts[0]).all():
        return ()
    shares = counts / counts.sum()
    rounded = shares.round(6)
    return tuple((shares.round(12) if (rounded[counts > 0] == 0).any() else rounded).tolist())


def open_dataset(
    data: Data,
    wants: tuple[str, ...],
    split: Split = "train",
    device: torch.device | str = "cpu",
    warn: Callable[[str], None] = print,
    memory: Memory | None = None,
) -> Splittable:
    """The dataset that `data` describes, with the columns that are wanted; small sets are loaded
    into memory, on the device.

    Raises InputError where one has no room there beside those of the other workers here, or has
    not those columns.

    warn(text) is told the name of every file that was skipped as broken. memory: this machine's,
    if not given.
    """
    if data.of_gray:
        refuse_others(data, wants)
        if split == "test" and not divided(layer(data), of_each(data)):
            split = "train"  # it is no test set: who was trained on it can tell by its fingerprint
        gray = open_dataset(layer(data), of_each(data), split, device, warn, memory)
        if data.stack:
            return Stacked(gray)
        if data.place:
            length = placed.LENGTH if split == "test" else None
            return Placed(gray, data.size, data.combinations, length, wants)
        if split == "test":
            return Bouncing(gray, data.size, wants, TEST, LENGTH)
        return Bouncing(gray, data.size, wants, TRAINED_ON)
    if data.source == SCENES:
        image, seed = (data.size, data.channels), 1 if split == "test" else 0
        if data.scenes == "captioned":
            return Captioned(*image, wants, seed=seed, combinations=data.combinations)
        return Scenes(*image, wants, seed=seed, simple=data.scenes == "simple")
    if is_parquet(data.source):
        return open_shards(data, wants, split)
    if "other" in wants:
        images = open_dataset(data, KINDS, split, device, warn, memory)
        assert isinstance(images, Images), "what is no shards is in memory"
        refuse_kinds(data.source, images.classes["label"])
        return Unpaired(images)
    source = open_source(data.source, split, wants)
    refuse_pairs(data, wants, source)
    refuse_too_large(data, wants, source, local_workers(), memory, loading=True)
    images, broken = load_images(
        source,
        wants,
        channels=data.channels,
        size=data.size,
        fit=data.fit,
        tolerate_broken=data.tolerate_broken,
    )
    for name, reason in zip(broken.names, broken.reasons, strict=True):
        warn(f"skipped {name}: {reason}")
    return images.to(device) if fits(images, torch.device(device)) else images


def divided(data: Data, wants: tuple[str, ...]) -> bool:
    """Whether there are test images that are none of those to train on."""
    if data.source == SCENES:
        return True
    if is_parquet(data.source):
        train, test = (open_shards(data, wants, split) for split in ("train", "test"))
        return train.fingerprint != test.fingerprint
    return open_source(data.source, "test", wants).has_split


def refuse_others(data: Data, wants: tuple[str, ...]) -> None:
    """InputError for columns that what is made of gray images has not."""
    if data.stack:
        key, what, has = "stack", "stacked", Stacked.columns
    elif data.place:
        key, what, has = "place", "placed", Placed.all_columns
    else:
        key, what, has = "bounce", "bouncing", ("image", "frames")
    remedy = f"leave data.{key} out, or do without the rest"
    refuse_missing(f"{what} images", has, wants, remedy)


def refuse_pairs(data: Data, wants: tuple[str, ...], source: Source) -> None:
    """InputError for pairs of which only the half would be seen that is damaged, or to be changed.

    As when a restorer learns that input/ is what clean images look like.
    """
    if wants == ("image",) and "target" in source.columns:
        before, after = PAIRS["target"]
        raise InputError(
            f"{data.source}: has pairs, {before}/ and {after}/, and this recipe looks at single"
            f" images; give {data.source.rstrip('/')}/{after}, or of a restorer pairs=true"
        )


def of_each(data: Data) -> tuple[str, ...]:
    """Columns of the gray images of which others are made."""
    return ("image", "label") if data.place else ("image",)


def layer(data: Data) -> Data:
    """The gray images of which three are stacked, or that bounce, or are placed."""
    plain = {
        "stack": False, "bounce": False, "place": False, "combinations": "all", "channels": 1,
        "holdout": 1,
    }  # fmt: skip
    size = data.size
    if data.bounce:
        size = side_of(size)
    elif data.place:
        size = placed.side_of(size)
    return data.model_copy(update={**plain, "size": size})


def fits(images: Images, device: torch.device) -> bool:
    """Whether images may live on the device: a GPU keeps most of its memory for the networks."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes < 0.3 * free


def open_shards(data: Data, wants: tuple[str, ...], split: Split) -> Shards:
    from genimg.data.parquet import Shards

    return Shards(
        data.source,
        wants,
        channels=data.channels,
        size=data.size,
        fit=data.fit,
        tolerate_broken=data.tolerate_broken,
        split=split,
    )
