"""Models that draw by text, judged by a detector: what `evaluate` says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genimg.contracts import Dataset
    from genimg.engine import Engine
    from genimg.recipe import Recipe

COMBINATIONS = ("seen", "held-out")


def detector_named(judge: str, registry: str, precision: str, engine: Engine) -> Engine | None:
    """The detector of a name, which can judge a model; None where it is of something else.

    InputError where it is of no use.
    """
    from genimg.faithfulness import refuse_detector
    from jobs.judgements import INCEPTION
    from jobs.model import Model

    if judge.startswith(INCEPTION):
        return None
    model = Model.named(judge, registry, precision)
    if "detect" not in model.recipe().can():
        return None
    detector = model.engine()
    refuse_detector(engine, detector, f"--judge {judge}")
    return detector


def judged_by_text(
    engine: Engine, detector: Engine, recipe: Recipe, dataset: Dataset, samples: int
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """(what of texts is right in a model's images; the same of real ones; how that was measured).

    recipe: with the data that captions are of. Of captioned scenes, those of combinations that are
    seen in training and of those that are held out apart, of scenes that nobody was trained on.
    """
    from genimg.data.opening import open_dataset
    from genimg.faithfulness import SURE, faithful

    about = {
        "model_digest": detector.digest,
        "samples": samples,
        "method": f"captions against boxes of score {SURE} or more; textures are not judged",
    }
    data = recipe.data
    if (data.source, data.scenes) != ("scenes", "captioned"):
        made, real = faithful(engine, detector, dataset, samples)
        return made, real, about
    all_made: dict[str, float] = {}
    all_real: dict[str, float] = {}
    for combinations in COMBINATIONS:
        part = data.model_copy(update={"combinations": combinations})
        opened = open_dataset(part, recipe.wants, "test", engine.device)
        name = combinations.replace("-", "_")
        both = faithful(engine, detector, opened, samples)
        for scores, into in zip(both, (all_made, all_real), strict=True):
            into |= {f"{name}_{which}": value for which, value in scores.items()}
    return all_made, all_real, about | {"combinations": " and ".join(COMBINATIONS)}
