"""From what a person calls a model to its checkpoint folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cluster.places import everywhere
from jobs.runs.addressed import BUNDLED, folder_at

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.engine import Engine
    from genimg.recipe import Recipe

INCEPTION = "inception:"  # begins what is no model, but the file of its weights


def folder_of(model: str, registry: str) -> tuple[Path, bool]:
    """(folder, whether every byte of it was verified) of a checkpoint path, or of NAME,
    NAME@ALIAS or NAME@7 in a registry, or among the models that are bundled.

    A run's folder on this machine stands for its newest checkpoint, which is said, with which is
    its best one; a checkpoint in S3 is copied here once.
    """
    from cluster.fallback import over
    from genimg import bundled
    from genimg.checkpoint import MANIFEST

    if model.startswith(("s3://", BUNDLED)):
        return folder_at(model)
    path = Path(model).expanduser()
    if (path / MANIFEST).is_file():
        return path, False
    if (path / "checkpoints").is_dir():
        from jobs.runs.folder import RunFolder

        run = RunFolder(str(path.parent), path.name)
        if done := run.checkpoints():
            newest = Path(run.path(done[-1]))
            say_newest(model, newest)
            return newest, False
    if path.is_dir() or "/" in model:
        from genimg.errors import InputError

        raise InputError(f"{model}: not a checkpoint folder (no {MANIFEST}) nor a run with one")
    models = over(registry, bundled.FOLDER)
    return models.fetch(models.resolve(model)), True


@cache
def say_newest(model: str, newest: Path) -> None:
    """Which checkpoint a run's folder stands for, once; and the best one, by its own metric."""
    from cluster.storage import NotFound
    from genimg import checkpoint, recipes
    from jobs.console import say
    from jobs.runs.folder import RunFolder

    run = RunFolder(str(newest.parents[2]), newest.parents[1].name)
    recipe = recipes.from_json((newest / checkpoint.RECIPE).read_text())
    seen, which = int(newest.name), ""
    with suppress(NotFound):  # of a copy without what a training goes on from
        best = run.best(recipe)
        which = "; it is the best" if best == seen else f"; the best is {run.path(best)}"
        which += "" if recipe.last_is_best else f" (by {recipe.chosen_by[0]})"
    say(f"{model}: its newest checkpoint, of {seen:,} images{which}")


def address_of(model: str, registry: str) -> str:
    """Of a model's files, a checkpoint's folder or a version's in a registry: it means the same to
    any process, later too."""
    from cluster.fallback import over
    from genimg import bundled

    if model.startswith(("s3://", BUNDLED)):
        return model
    if "/" in model or Path(model).expanduser().is_dir():
        return everywhere(str(folder_of(model, registry)[0]))
    models = over(everywhere(registry), bundled.FOLDER)
    version = models.resolve(model)
    if version.place == str(bundled.FOLDER):
        return f"{BUNDLED}{version.reference}"
    return models.address(version)


@dataclass(frozen=True)
class Model:
    """A model that a person named, and its checkpoint on this machine."""

    name: str
    registry: str
    precision: str
    folder: Path
    verified: bool  # somebody has read every byte of it

    @classmethod
    def named(cls, name: str, registry: str, precision: str = "auto") -> Self:
        return cls(name, registry, precision, *folder_of(name, registry))

    def recipe(self) -> Recipe:
        from genimg import checkpoint, recipes
        from genimg.errors import InputError

        checkpoint.read_manifest(self.folder)
        path = self.folder / checkpoint.RECIPE
        if not path.is_file():
            raise InputError(f"{path}: missing from the checkpoint")
        return recipes.from_json(path.read_text())

    def abilities(self, recipe: Recipe) -> dict[str, Ability]:
        """What it can do, as an engine of it will know; nothing is loaded."""
        from genimg.directions import read, steered

        return steered(recipe.able(), read(self.folder))

    def engine(self, precision: str | None = None) -> Engine:
        """precision: in place of the one that was asked for."""
        from genimg.engine import Engine

        chosen = precision or self.precision
        return Engine.load(self.folder, precision=chosen, verified=self.verified)


def with_helpers(recipe: Recipe, registry: str, training: bool = True) -> Recipe:
    """A recipe whose helpers are named by addresses of their files, which do not change.

    InputError where one is no use to it. They are copied to this machine. training: with those
    that training alone needs
    """
    for name, reference in recipe.helped_by(training).items():
        helper = Model.named(reference, registry)
        recipe.refuse_helper(name, helper.recipe())
        address = address_of(reference, registry)
        recipe = recipe.override([f"{recipe.helpers[name]}={address!r}"])
    return recipe


def load_engine(model: str, registry: str, precision: str = "auto") -> Engine:
    return Model.named(model, registry, precision).engine()
