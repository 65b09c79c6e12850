"""What all recipes of restorers share: a network that undoes damage of known kinds, and its scores.

An image is judged whole: it is damaged in a known way, restored, rounded to bytes and compared.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from genimg import rng
from genimg.budget import PIXELS, shares, stacks
from genimg.contracts import Ability, Dataset, Rows, Stored
from genimg.degradations import Damage, Damaged, bicubic, degrade
from genimg.inference import Inference, to_floats
from genimg.metrics.fidelity import WINDOW
from genimg.models.restoring import RestoringNetwork, constant_maps
from genimg.pixels import to_bytes_range
from genimg.recipe import Recipe
from genimg.recipes.looked import Looked
from genimg.tiles import tiled
from genimg.training.method import Part
from genimg.training.restoration import Restoration

TILE = 1024  # pixels: PIXELS in all
Pair = tuple[Tensor, Tensor]
Undo = Callable[[Sequence[Damage], Damaged], Tensor | None]  # -> uint8 [N, C, H, W]


class Scores(NamedTuple):
    """What a restorer was measured by, image by image.

    indices: int64 [N], of the images in their data
    names: of the columns, as psnr_25
    values: float64 [N, columns]
    """

    indices: Tensor
    names: tuple[str, ...]
    values: Tensor

    def means(self) -> dict[str, float]:
        """Of the columns that have scores."""
        means = zip(self.names, self.values.mean(dim=0).tolist(), strict=True)
        return {name: value for name, value in means if not math.isnan(value)}


class Restoring(Recipe):
    """A recipe of a restorer. Subclasses say which damage it undoes, and by which network."""

    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("psnr", "max")

    @model_validator(mode="after")
    def images_hold_a_window(self) -> Self:
        border = 2 * self.looked.border
        if self.data.size < WINDOW + border:
            without = f" without their borders of {self.looked.border}" if border else ""
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes {WINDOW + border + 1} or more;"
                f" its images are judged{without} by SSIM, whose window is {WINDOW} pixels wide"
            )
        return self

    @property
    @abstractmethod
    def operation(self) -> str:
        """What its models do: the name of an operation."""

    @property
    @abstractmethod
    def told(self) -> tuple[str, ...]:
        """What its network is told of the damage: columns, of which condition maps are made."""

    @property
    def scale(self) -> int:
        """By how much its networks enlarge."""
        return 1

    @abstractmethod
    def restorer(self) -> RestoringNetwork:
        """Freshly initialised."""

    @abstractmethod
    def damage(self) -> Sequence[Damage]:
        """What it learns to undo."""

    @abstractmethod
    def tests(self) -> Mapping[str, Sequence[Damage]]:
        """The damage that it is judged by, by the names that its metrics end in."""

    @property
    @abstractmethod
    def looked(self) -> Looked: ...

    @abstractmethod
    def loss_of(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Of images [N, C, H, W] in [-1, 1]; a scalar."""

    def networks(self) -> dict[str, nn.Module]:
        return {"restorer": self.restorer()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        restorer = networks["restorer"]
        assert isinstance(restorer, RestoringNetwork)

        def compute(rows: Rows) -> Rows:
            return {"image": restorer(rows["image"], maps_of(rows, self.told))}

        ability = Ability(
            compute,
            self.data.channels,
            ("image", *self.told),
            frozenset(self.told) - {"mask"},  # which an operation takes, and is no option of it
            margin=restorer.margin,
            stride=restorer.stride,
            scale=restorer.scale,
            held=restorer.bytes_held,
        )
        return {self.operation: ability}

    def method(self, device: torch.device) -> Restoration:
        return Restoration(
            Part(self.restorer(), betas=(0.9, 0.99)),
            self.degraded,
            self.loss_of,
            self.train,
            device,
        )

    def degraded(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(damaged images, condition maps of them) of clean ones and their keys."""
        made = degrade(self.damage(), images, keys)
        return made.images, maps_of(rows_of(made), self.told)

    # how it is judged

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """PSNR in dB and SSIM after each damage, means over whole images; `psnr`: over damages.

        The workers divide the images by their pixels; large ones are restored in tiles.
        """
        return self.summary(self.measure(inference, data).means())

    @torch.no_grad()
    def baseline(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Of the damaged images, enlarged where the network enlarges."""
        return self.summary(self.measure(inference, data, self.nothing).means())

    def nothing(self, every: Sequence[Damage], damaged: Damaged) -> Tensor:
        """uint8 [N, C, H, W] of damaged images as they are."""
        return to_bytes_range(enlarged(damaged.images, self.scale))

    def summary(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics of each damage, and before them `psnr`: its mean over damages."""
        of_tests = [metrics[f"psnr_{name}"] for name in self.tests()]
        return {"psnr": sum(of_tests) / len(of_tests)} | dict(metrics)

    @torch.no_grad()
    def measure(self, inference: Inference, data: Dataset, undo: Undo | None = None) -> Scores:
        """Of the images that are chosen for it, by all workers together.

        undo: restores in place of the network; what it does not undo (None) has no score: NaN
        """
        looked = self.looked
        chosen = torch.from_numpy(data.choose(looked.images))
        part = inference.share(len(chosen))
        sides = [
            list(data.whole(int(index))["image"].shape[1:])
            for index in chosen[part.start : part.stop]
        ]
        mine = torch.tensor(sides, device=inference.device).view(-1, 2)
        shapes = [(height, width) for height, width in inference.gather(mine.long()).tolist()]
        scale = self.restorer_of(inference).scale
        for one, (height, width) in zip(chosen.tolist(), shapes, strict=True):
            looked.refuse_smaller(data.name(one), height, width, scale)
        sync = inference.sync
        by_pixels = shares([height * width for height, width in shapes], sync.world)[sync.rank]

        names = tuple(f"{measure}_{name}" for name in self.tests() for measure in looked.measures)
        shape = (0, 1 + len(names))  # the number of the image comes first
        rows = [torch.empty(shape, dtype=torch.float64, device=inference.device)]
        for numbers in stacks(by_pixels, shapes):
            index = chosen[numbers]
            pair = pair_of([data.whole(int(each)) for each in index])
            order = torch.tensor(numbers, device=inference.device).double()
            scores = [self.scores(inference, index, pair, name, undo) for name in self.tests()]
            rows.append(torch.cat([order[:, None], *scores], dim=1))
        every = inference.gather(torch.cat(rows))
        every = every[every[:, 0].argsort()]  # the same sum whoever did which
        return Scores(chosen, names, every[:, 1:].cpu())

    def scores(
        self, inference: Inference, index: Tensor, pair: Pair, test: str, undo: Undo | None
    ) -> Tensor:
        """float64 [N, measures] of images after a damage; as `measure`."""
        damaged, clean = self.damaged(inference, index, pair, test)
        made = undo(self.tests()[test], damaged) if undo else self.restored(inference, damaged)
        if made is None:
            shape = (len(clean), len(self.looked.measures))
            return torch.full(shape, torch.nan, dtype=torch.float64, device=clean.device)
        return self.looked.compared(made, clean)

    def damaged(
        self, inference: Inference, index: Tensor, pair: Pair, test: str
    ) -> tuple[Damaged, Tensor]:
        """(what a damage makes of images, what is to be made of that: uint8 [N, C, H, W]).

        index: int64 [N], which decide the damage
        """
        scale = self.restorer_of(inference).scale
        height, width = (side - side % scale for side in pair[0].shape[-2:])
        given, clean = (each[..., :height, :width].to(inference.device) for each in pair)
        keys = rng.fold(self.looked.seed, index).to(clean.device)
        return degrade(self.tests()[test], to_floats(given, clean.device), keys), clean

    def restored(self, inference: Inference, damaged: Damaged) -> Tensor:
        """uint8 [N, C, H, W] of what was damaged: whole, or in tiles of PIXELS at a time.

        As the operation does it: what a mask does not mark comes back as it was.
        """
        restorer = self.restorer_of(inference)
        images = damaged.images
        channels = images.shape[1]

        def restore(tiles: Tensor) -> Tensor:
            return restorer(tiles[:, :channels], tiles[:, channels:])

        height, width = images.shape[-2:]
        fits = height * width <= PIXELS
        made = tiled(
            lambda tiles: to_bytes_range(inference.run(restore, tiles)),
            torch.cat([images, maps_of(rows_of(damaged), self.told)], dim=1),
            side=max(height, width) + 2 * restorer.margin + restorer.stride
            if fits
            else max(TILE, 4 * restorer.margin),
            margin=restorer.margin,
            stride=restorer.stride,
            scale=restorer.scale,
        )
        if "mask" not in self.told:
            return made
        return torch.where(damaged.tells["mask"] > 0, made, to_bytes_range(images))

    @staticmethod
    def restorer_of(inference: Inference) -> RestoringNetwork:
        restorer = inference.networks["restorer"]
        assert isinstance(restorer, RestoringNetwork)
        return restorer

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        looked = self.looked
        luma = (
            " of the luma of BT.601, rounded,"
            if looked.planes == "luma" and data.channels == 3
            else ""
        )
        cut = f"{looked.border} pixels cut off all around" if looked.border else "no crop"
        return {
            "images": min(looked.images, len(data)),
            "seed": looked.seed,
            "detector": "none: pixels",
            "method": f"{', '.join(looked.measures)}{luma} of whole images rounded to bytes; {cut};"
            f" damage: {self.damage_told()}",
        }

    def damage_told(self) -> str:
        """The damage that it is judged by, in words."""
        return "; ".join(
            f"{name}: {' then '.join(each.told() for each in every) or 'as it came'}"
            for name, every in self.tests().items()
        )

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: clean, damaged, restored."""
        chosen = torch.from_numpy(data.choose(8))
        pair = pair_of([data.fetch(chosen.numpy(), chosen.to(data.device or inference.device))])
        tests = list(self.tests())
        places = torch.arange(len(chosen))
        made, clean = self.damaged(inference, places, pair, tests[len(tests) // 2])
        restored = to_floats(self.restored(inference, made), clean.device)
        shown = enlarged(made.images, self.restorer_of(inference).scale)
        columns = torch.stack([to_floats(clean, clean.device), shown, restored], dim=1)
        return columns.flatten(0, 1).clamp(-1, 1).float().cpu(), 6


def pair_of(stored: Sequence[Stored]) -> Pair:
    """(images as given, as they should be), of images [C, H, W] or [N, C, H, W] of one size."""
    given, clean = (
        torch.stack([each[name if name in each else "image"] for each in stored])
        for name in ("image", "target")
    )
    return (given, clean) if given.dim() == 4 else (given[0], clean[0])


def rows_of(damaged: Damaged) -> Rows:
    return {"image": damaged.images, **damaged.tells}  # type: ignore[typeddict-item]


def maps_of(rows: Rows, told: Sequence[str]) -> Tensor:
    """float32 [N, K, H, W] of what a network is told: each a map over the image, 0 to about 1.

    sigma: in 255ths; quality: 1 is the worst; mask: 1 where a pixel is missing.
    """
    images = rows["image"]
    maps = [images.new_empty(len(images), 0, *images.shape[-2:])]
    for name in told:
        if name == "mask":
            mask = rows["mask"].view(len(images), 1, *images.shape[-2:])
            maps.append(mask.to(images.dtype))
        else:
            level = rows["sigma"] / 255 if name == "sigma" else 1 - rows["quality"] / 100
            maps.append(constant_maps(level[:, None], images))
    return torch.cat(maps, dim=1)


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Bicubic, where images are smaller than they should be."""
    return images if scale == 1 else bicubic(images, scale)
