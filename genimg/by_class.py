"""Models that draw by class, judged class by class: GAN-test, GAN-train, distances within classes.

Shmelkov, Schmid, Alahari 2018, "How good is my GAN?", section 3. Accuracies are those of a single
view of each image, whatever a judge's recipe averages over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from genimg import references
from genimg.contracts import Dataset
from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.engine import Engine
from genimg.inference import prepared
from genimg.judges import Judge
from genimg.judging import AT_ONCE, Seen, chosen_from, identity
from genimg.metrics.distributions import FeatureStatistics, frechet_distance
from genimg.rng import fold
from genimg.training.loop import fit
from genimg.training.sync import Alone

ByClass = dict[str, float]
"""A value of each class that has one, by the classes' names."""


def numbered(labels: Sequence[str], names: Sequence[str]) -> Tensor | None:
    """int64 [N]: the numbers of classes by their names; None where one is none of these."""
    numbers = {name: number for number, name in enumerate(names)}
    if not labels or not set(labels) <= numbers.keys():
        return None
    return torch.tensor([numbers[label] for label in labels])


def truth_in(judge: Judge, data: Dataset, indices: np.ndarray) -> Tensor | None:
    """int64 [N], as the judge numbers its classes: what images of a dataset at int64 `indices` are.

    None where that is not known, or some are of classes that the judge does not tell.
    """
    if "label" not in data.columns:
        return None
    of_data = numbered(data.classes["label"], judge.abilities["classify"].classes)
    if of_data is None:
        return None

    def compute() -> dict[str, Tensor]:
        parts = [
            data.fetch(few, fold(0, torch.from_numpy(few)).to(data.device or "cpu"))["label"]
            for few in np.split(indices, range(AT_ONCE, len(indices), AT_ONCE))
        ]
        return {"label": torch.cat(parts).cpu()}

    about = identity(judge) | {"labels": chosen_from(data, indices)}
    return of_data[references.kept(about, compute, torch.device("cpu"))["label"]]


def accuracy(guessed: Tensor, truth: Tensor) -> float:
    """Of guesses int64 [N] at int64 [N]: the share that is right."""
    return float((guessed == truth).double().mean())


def accuracies(guessed: Tensor, truth: Tensor, names: Sequence[str]) -> ByClass:
    """As `accuracy`, within each class that there is."""
    here = {number: truth == number for number in truth.unique().tolist()}
    return {names[number]: accuracy(guessed[of], truth[of]) for number, of in here.items()}


def distances(
    made: Seen, asked: Tensor, real: Seen, truth: Tensor, names: Sequence[str]
) -> ByClass:
    """Frechet distances of the features within classes (intra-FID, section 4.2 of Miyato & Koyama
    2018): of each class of which both sets have more images than there are features.

    asked, truth: int64 [N] and [M], what images are of
    """
    found: ByClass = {}
    both = ((made.features.cpu(), asked), (real.features.cpu(), truth))
    for number in asked.unique().tolist():
        sets = [features[labels == number] for features, labels in both]
        if min(map(len, sets)) > made.features.shape[1]:
            found[names[number]] = frechet_distance(*map(FeatureStatistics.of, sets))
    return found


def intra_fid(distances: ByClass, classes: ByClass) -> dict[str, float]:
    """The mean of the distances, as a metric, where every class has one."""
    if not distances or distances.keys() != classes.keys():
        return {}
    return {"judge_intra_fid": sum(distances.values()) / len(distances)}


def student_of(
    judge: Engine,
    images: Tensor,
    labels: Tensor,
    progress: Callable[[int, dict[str, float]], None] = lambda seen, values: None,
) -> Engine:
    """A classifier of the judge's own recipe that has learnt from these images and no others.

    images: uint8 [N, C, H, W]; labels: int64 [N], as the judge numbers its classes
    progress: told the images seen, of the recipe's `train.images`, and the losses
    """
    recipe, device = judge.recipe, judge.device
    train = recipe.train.model_copy(update={"checkpoint_every": recipe.train.images})
    classes = {"label": judge.abilities["classify"].classes}
    data = Images({"image": images.contiguous(), "label": labels}, classes)
    torch.manual_seed(train.seed)
    method = recipe.method(device)
    loader = Loader(
        data.to(device),
        batch_size=train.batch_size,
        seed=train.seed,
        device=device,
        augment=augmenting(recipe),
    )
    with closing(iter(loader)) as batches:
        fit(method, batches, train, sync=Alone(), log=progress, save=lambda method: None)
    networks = {name: prepared(each, judge.precision) for name, each in method.averages.items()}
    return Engine(recipe, networks, judge.precision)
