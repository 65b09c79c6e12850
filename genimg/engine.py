"""An engine: a checkpoint made callable. It does what its recipe's networks are able to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn

from genimg import checkpoint, directions, recipes, rng
from genimg.contracts import Plan, Rows
from genimg.directions import steered
from genimg.drawn import seeded
from genimg.errors import InputError
from genimg.inference import Inference, latents, prepared
from genimg.operations import Operation
from genimg.passes import CHUNK, PACES, Pace, fitting, rows_at_once
from genimg.precision import Precision, resolved
from genimg.texts import examples_of, tokens_of
from genimg.training.method import load_states

if TYPE_CHECKING:
    from genimg.recipe import Recipe

_PROBED_SIDE = 64  # pixels of images of any size, with which passes are tried


class Stopped(Exception):
    """Nobody waits for what was being computed."""


class Engine:
    """Runs the operations that its recipe has abilities for; any other raises InputError.

    A row gives the same bits in whatever pass it is computed; whether passes of a size do that is
    found out when one is first wanted, or of all sizes by `settle`.

    digest: of the checkpoint folder that it was loaded from, if it was
    """

    digest = ""

    def __init__(
        self, recipe: Recipe, networks: dict[str, nn.Module], precision: Precision = "float32"
    ) -> None:
        self.recipe = recipe
        self.networks = networks
        self.abilities = recipe.abilities(networks)
        self.device = next(next(iter(networks.values())).parameters()).device
        most = rows_at_once(recipe.data.size**2, self.device)
        self._paces: dict[tuple[str, int, int], Pace] = {}
        inference = Inference(networks, precision, most=most)
        self.inference = inference.establish(*self._examples(most))

    def settle(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Find out now which sizes of passes may be: no request has to wait for that then.

        In any thread; alive: asked before each size.
        """
        assert self.inference.sizes is not None, "they are established"
        self.inference.sizes.all(alive)

    def hasty(self) -> Engine:
        """This engine with passes of any size, whatever bits a row then has: enough to find out
        whether it works, and without waiting for what `settle` does."""
        made = copy.copy(self)
        made.inference = replace(self.inference, sizes=None)
        return made

    def share(self) -> None:
        """Cut large images small, though more is computed twice: others wait for each tile."""
        self.abilities = {name: replace(each, held=0) for name, each in self.abilities.items()}

    @property
    def precision(self) -> Precision:
        """In which it computes."""
        return self.inference.precision

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str | torch.device | None = None,
        precision: str = "auto",
        *,
        verified: bool = False,
        overrides: Sequence[str] = (),
    ) -> Self:
        """The engine of a checkpoint folder, every byte of which is verified first.

        device: where it computes; None takes the GPU if there is one.
        precision: float32 or bfloat16; auto takes the latter where the device multiplies it
            natively.
        verified: somebody has read every byte just now, as `Registry.fetch` does.
        overrides: of its recipe: by what it draws where nothing else is asked (sampler.steps=4)
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        recipe, networks = trained(folder, device, verified=verified)
        recipe = recipe.override(overrides)
        chosen = resolved(precision, torch.device(device))
        for network in networks.values():
            prepared(network, chosen)
        engine = cls(recipe, networks, chosen)
        engine.abilities = steered(engine.abilities, directions.read(Path(folder)))
        engine.digest = checkpoint.read_manifest(Path(folder)).digest()
        return engine

    def __call__(
        self,
        operation: Operation,
        *,
        alive: Callable[[], bool] = lambda: True,
        progress: Callable[[int, int], None] = lambda done, count: None,
        **inputs: Any,
    ) -> Any:
        """What an operation gives for its inputs: one of genimg.results.

        alive: asked before each pass; where it is not, Stopped is raised.
        progress: told behind each pass how many rows are done, and of how many
        """
        plan = self.plan(operation, **inputs)
        pace = self._pace(operation.name, plan)
        start = 0
        while start < plan.count:
            if not alive():
                raise Stopped
            end = plan.lap(start)[1]
            size = pace.size(end - start)
            stop = min(start + size, end)
            try:
                with pace.timed(stop - start):
                    # as `most`: where no pass so small agrees, one of the usual size does
                    self.compute(operation.name, [(plan, start, stop)], max(size, pace.usual))
            except (RuntimeError, MemoryError):
                if stop - start <= pace.usual:
                    raise
                continue  # as usual: no larger one is tried again
            progress(stop, plan.count)
            start = stop
        return plan.result()

    def plan(self, operation: Operation, **inputs: Any) -> Plan:
        """An operation on inputs, ready to be computed. Raises InputError."""
        return operation.plan(self.recipe.allow(operation, self.abilities), inputs)

    def most(self, plan: Plan, waited: bool = False) -> int:
        """Rows of a plan in one pass, at most. waited: others wait for it, and for each step."""
        pixels = plan.pixels * (plan.steps if waited else 1)
        return min(self.inference.most, rows_at_once(pixels, self.device))

    def _pace(self, name: str, plan: Plan) -> Pace:
        """At which an operation's small images are computed; of large ones few fit into a pass."""
        usual = self.most(plan)
        if usual < CHUNK:
            return Pace(usual)
        side = min(_PROBED_SIDE, self.recipe.data.size)  # with which passes are tried as well
        most = fitting(max(plan.pixels, side**2), self.device)
        others = [size for size in PACES if size <= most and size != usual]
        return self._paces.setdefault((name, plan.pixels, plan.steps), Pace(usual, others))

    def compute(
        self, name: str, parts: Sequence[tuple[Plan, int, int]], most: int | None = None
    ) -> None:
        """One pass of an operation: rows start to stop of each plan, in laps of equal keys.

        most: rows in it, where they may be other than `self.most` says
        """
        told = seeded(parts)
        told = told or joined([plan.rows(start, stop) for plan, start, stop in parts])
        rows = self.rows(name, self.drawn(name, told), most or self.most(parts[0][0]))
        rows = parts[0][0].converted(rows)
        done = 0
        for plan, start, stop in parts:
            plan.put(start, taken(rows, done, done + stop - start))
            done += stop - start

    def run(self, name: str, plans: Iterable[Plan]) -> Iterator[Plan]:
        """Compute plans of an operation as they come; each is given back, in order, when done.

        Rows of neighbours share a pass where their keys are equal. No more plans are drawn ahead
        than a pass has rows.
        """
        parts: list[tuple[Plan, int, int]] = []
        key: Hashable = None
        room = 0
        for plan in plans:
            start = 0
            while start < plan.count:
                own, end = plan.lap(start)
                if parts and own != key:
                    yield from self._done(name, parts)
                    parts = []
                key, room = own, room if parts else self.most(plan)
                stop = min(start + room, end)
                parts.append((plan, start, stop))
                room -= stop - start
                start = stop
                if not room:
                    yield from self._done(name, parts)
                    parts = []
        yield from self._done(name, parts)

    def _done(self, name: str, parts: Sequence[tuple[Plan, int, int]]) -> Iterator[Plan]:
        """A pass, and the plans of which it was the last."""
        if parts:
            self.compute(name, parts)
        yield from (plan for plan, _, stop in parts if stop == plan.count)

    def drawn(self, name: str, rows: Rows) -> Rows:
        """With latents in place of seeds: those of a pass cost little more than those of a row."""
        if "seed" not in rows:
            return rows
        drawn = latents(rows["seed"], self.abilities[name].latent) * rows["truncation"][:, None]
        others = {key: each for key, each in columns(rows) if key not in ("seed", "truncation")}
        return cast(Rows, {"latent": drawn, **others})

    def rows(self, name: str, rows: Rows, most: int | None = None) -> Rows:
        """What an ability makes of rows on any device, in passes of at most `most` rows."""
        there = {key: each.to(self.device) for key, each in columns(rows)}
        return self.inference.rows(self.abilities[name].compute, cast(Rows, there), most)

    def _examples(self, most: int) -> Iterator[tuple[Callable[[Rows], Rows], Rows]]:
        """What will be computed, each with rows for a full pass."""
        keys = torch.arange(most, device=self.device)
        tried: list[Callable[[Rows], Rows]] = []
        for ability in self.abilities.values():
            if ability.compute in tried or ability.alone:
                continue
            tried.append(ability.compute)
            side = ability.side or min(_PROBED_SIDE, self.recipe.data.size)
            images = rng.normal(keys, (ability.channels, side, side)).clamp(-1, 1)
            every: Rows = {
                "latent": latents(keys, ability.latent),
                "image": images,
                "sigma": torch.full((most,), 25.0, device=self.device),
                "quality": torch.full((most,), 25.0, device=self.device),
                "mask": rng.integers(keys, 2, (side, side)),
                "back": rng.integers(keys, 2),
                "change": rng.uniform(keys, (2, 1)),  # of all channels alike
                "classes": rng.uniform(keys, (len(ability.classes),)),
                "text": tokens_of(examples_of(ability.vocabulary, most)).to(self.device),
                "steps": torch.full((most,), 2, device=self.device),
                "guidance": torch.full((most,), 2.0, device=self.device),
            }
            taken = {name: each for name, each in columns(every) if name in ability.takes}
            yield ability.compute, cast(Rows, taken)


def trained(
    folder: Path | str, device: str | torch.device, *, verified: bool = False
) -> tuple[Recipe, dict[str, nn.Module]]:
    """(recipe, networks) of a checkpoint folder; as `Engine.load`, but not made ready to serve.

    The networks are as they were trained, but frozen and in evaluation mode.
    """
    folder = Path(folder)
    if verified:
        checkpoint.read_manifest(folder)
    else:
        checkpoint.verify(folder)
    recipe = recipes.from_json((folder / checkpoint.RECIPE).read_text())
    networks = recipe.networks()
    weights = checkpoint.read_tensors(folder, checkpoint.WEIGHTS)
    try:
        load_states(networks, weights)
    except RuntimeError as error:
        first = str(error).split("\n", 2)[1].strip()[:100]
        raise InputError(
            f"{folder / checkpoint.WEIGHTS}: not the weights of this recipe's networks, as this"
            f" genimg knows them ({first}...); serve it by the version that made it, or train anew"
        ) from None
    for network in networks.values():
        network.to(device).eval().requires_grad_(False)
    return recipe, networks


def columns(rows: Rows) -> Iterator[tuple[str, Tensor]]:
    yield from cast("dict[str, Tensor]", rows).items()


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = [name for name, _ in columns(parts[0])]
    every = [dict(columns(part)) for part in parts]
    return cast(Rows, {name: torch.cat([part[name] for part in every]) for name in names})


def taken(rows: Rows, start: int, stop: int) -> Rows:
    return cast(Rows, {name: each[start:stop] for name, each in columns(rows)})
