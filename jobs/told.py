"""Models that draw by text, judged by who sees what they draw: what `evaluate` says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genimg.contracts import Dataset
    from genimg.engine import Engine
    from genimg.recipe import Recipe
    from genimg.results import Pictures

AT_ONCE = 512  # images that are drawn before it is told
COMBINATIONS = ("seen", "held-out")


def reader_named(judge: str, registry: str, precision: str, engine: Engine) -> Engine | None:
    """Who can tell whether a model draws what texts say: a detector, or where gray images are
    placed a classifier of these; None where the judge of that name is something else.

    InputError where it is of no use.
    """
    from genimg.faithfulness import refuse_detector
    from jobs.model import INCEPTION, Model

    if judge.startswith(INCEPTION):
        return None
    model = Model.named(judge, registry, precision)
    can, recipe = model.recipe().can(), engine.recipe
    if "classify" in can and recipe.data.place and "text" in recipe.wants:
        return model.engine()
    if "detect" not in can:
        return None
    detector = model.engine()
    refuse_detector(engine, detector, f"--judge {judge}")
    return detector


def drawn_by_captions(
    engine: Engine, name: str, data: Dataset, count: int, progress: Callable[[int, int], None]
) -> Pictures:
    """Images of seeds 0 to count - 1, each by the caption of one of the images that stand for a
    dataset, over and over where these are fewer. InputError where there are no captions.

    progress: told how many are drawn, and of how many
    """
    import numpy as np

    from genimg.errors import InputError
    from genimg.recipes.synthesis import Synthesis
    from genimg.results import Pictures

    recipe = engine.recipe
    assert isinstance(recipe, Synthesis), "others draw nothing"
    if "text" not in data.columns:
        raise InputError(f"{name} draws by text, and the data tells none; give captions")
    chosen = data.choose(count)
    parts = []
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        texts = recipe.texts(data, chosen[np.array(numbers) % len(chosen)])
        images = recipe.generated(engine.inference, numbers, texts=texts)
        parts.append(images.permute(0, 2, 3, 1).cpu().numpy())
        progress(numbers.stop, count)
    return Pictures(np.concatenate(parts), tuple(range(count)))


def judged_by_text(
    engine: Engine, judge: Engine, recipe: Recipe, dataset: Dataset, samples: int, named: str
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """(what of texts is right in a model's images; the same of real ones; how that was measured).

    recipe: with the data that captions are of. Of captioned scenes and placed images, those of
    combinations that are seen in training and of those that are held out apart, of a test set that
    nobody was trained on. named: the judge, as it was asked for
    """
    from functools import partial

    from genimg import faithfulness, legible
    from genimg.data import grammar, placed
    from genimg.data.opening import open_dataset

    data = recipe.data
    if data.place:
        assert isinstance(dataset, placed.Placed)
        legible.refuse_reader(judge, dataset.names, named)
        seen_by = partial(legible.scores, judge)
        compared = partial(faithfulness.faithful, read=placed.read, scored=seen_by)
        method = (
            "digits as they are read where they are said to stand; elsewhere at most"
            f" {legible.STRAY} of the brightness"
        )
    else:
        found_by = faithfulness.by_detector(judge)
        compared = partial(faithfulness.faithful, read=grammar.read, scored=found_by)
        sure = faithfulness.SURE
        method = f"captions against boxes of score {sure} or more; textures are not judged"
    about = {"model_digest": judge.digest, "samples": samples, "method": method}
    if not data.place and (data.source, data.scenes) != ("scenes", "captioned"):
        return *compared(engine, dataset, samples), about
    all_made: dict[str, float] = {}
    all_real: dict[str, float] = {}
    for combinations in COMBINATIONS:
        part = data.model_copy(update={"combinations": combinations})
        opened = open_dataset(part, recipe.wants, "test", engine.device)
        name = combinations.replace("-", "_")
        both = compared(engine, opened, samples)
        for scores, into in zip(both, (all_made, all_real), strict=True):
            into |= {f"{name}_{which}": value for which, value in scores.items()}
    return all_made, all_real, about | {"combinations": " and ".join(COMBINATIONS)}
