"""An engine: a checkpoint made callable. Images come in and go out as arrays of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from genimg import checkpoint, recipes, rng
from genimg.errors import InputError
from genimg.images import to_bytes_range
from genimg.inference import Inference, latents, prepared, rows_at_once
from genimg.noise_level import estimate_sigma
from genimg.precision import Precision, resolved
from genimg.tiles import tiled
from genimg.training.method import load_states

if TYPE_CHECKING:
    from genimg.recipe import Recipe

_AUTO_TILE = 512  # pixels
_LARGEST_TRUNCATION = 10


class Engine:
    """What a checkpoint can do is in `capabilities`; anything else raises InputError.

    Arrays of images are uint8 [N, H, W, C], gray C = 1 or RGB C = 3. A row gives the same bits in
    whatever batch it is computed; which batches do is found out here, by some passes.
    """

    def __init__(
        self, recipe: Recipe, networks: dict[str, nn.Module], precision: Precision = "float32"
    ) -> None:
        self.recipe = recipe
        self.networks = networks
        self.capabilities = recipe.capabilities
        self.device = next(next(iter(networks.values())).parameters()).device
        most = rows_at_once(recipe.data.size, self.device)
        self.inference = Inference(networks, precision, most=most)
        if examples := self._examples():
            self.inference = self.inference.establish(*examples)

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
    ) -> Self:
        """The engine of a checkpoint folder, every byte of which is verified first.

        device: where it computes; None takes the GPU if there is one.
        precision: float32 or bfloat16; auto takes the latter where the device multiplies it
            natively.
        verified: somebody has read every byte just now, as `Registry.fetch` does.
        """
        folder = Path(folder)
        if verified:
            checkpoint.read_manifest(folder)
        else:
            checkpoint.verify(folder)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        recipe = recipes.from_json((folder / checkpoint.RECIPE).read_text())
        networks = recipe.networks()
        load_states(networks, checkpoint.read_tensors(folder, checkpoint.WEIGHTS))
        chosen = resolved(precision, torch.device(device))
        for network in networks.values():
            prepared(network.to(device).eval().requires_grad_(False), chosen)
        return cls(recipe, networks, chosen)

    def _examples(self) -> list[tuple[Callable[..., Tensor], Tensor]]:
        """The functions that are run in batches, each with rows for a full pass."""
        keys = torch.arange(self.inference.most, device=self.device)
        data = self.recipe.data
        images = rng.normal(keys, (data.channels, data.size, data.size)).clamp(-1, 1)
        examples: list[tuple[Callable[..., Tensor], Tensor]] = []
        if "sample" in self.capabilities:
            generate, dimensions = self._generator()
            examples.append((generate, latents(keys, dimensions)))
        if "encode" in self.capabilities:
            examples.append((self._mean, images))
        if "classify" in self.capabilities:
            examples.append((self.networks["classifier"], images))
        return examples

    def need(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise InputError(
                f"a {self.recipe.recipe} model cannot {capability}; "
                f"it can: {', '.join(self.capabilities)}"
            )

    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        label: str | None = None,
        text: str | None = None,
        truncation: float = 1.0,
    ) -> np.ndarray:
        """`n` images; image i is that of seed `seed + i`, whatever batch it is made in.

        truncation: factor on the latents; below 1 trades variety for typicality.
        """
        self.need("sample")
        if n < 1:
            raise InputError(f"n={n}: ask for at least 1 image")
        if not 0 <= seed < 2**63 - n:
            raise InputError(f"seed={seed}: must lie between 0 and {2**63 - n - 1} for n={n}")
        for name, value in (("label", label), ("text", text)):
            if value is not None:
                raise InputError(f"{name}={value!r}: this {self.recipe.recipe} takes no {name}")
        return self.sample_seeds(np.arange(seed, seed + n), truncation)

    def sample_seeds(self, seeds: np.ndarray, truncation: float | np.ndarray = 1.0) -> np.ndarray:
        """The images of seeds int64 [N], made together; each is the one that `sample` makes of it.

        truncation: as for `sample`, or [N] with a factor for each image.
        """
        self.need("sample")
        seeds = np.asarray(seeds)
        if seeds.ndim != 1 or not len(seeds) or seeds.dtype != np.int64 or seeds.min() < 0:
            raise InputError(
                f"seeds of {seeds.dtype} {list(seeds.shape)}: expected int64 [N] from 0, at least 1"
            )
        factors = np.asarray(truncation, np.float32)
        if not ((factors >= 0) & (factors <= _LARGEST_TRUNCATION)).all():  # NaN is neither
            raise InputError(
                f"truncation={truncation}: must lie between 0 and {_LARGEST_TRUNCATION}"
            )
        if factors.shape not in ((), seeds.shape):
            raise InputError(
                f"truncation of shape {list(factors.shape)}: expected one factor or {len(seeds)}"
            )
        generate, dimensions = self._generator()
        keys = torch.from_numpy(seeds).to(self.device)
        scale = torch.from_numpy(factors.reshape(-1, 1)).to(self.device)
        return self._arrays(generate, latents(keys, dimensions) * scale)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images -> float32 [N, latent], the means of their posteriors."""
        self.need("encode")
        return self.inference.run(self._mean, self.to_inputs(images)).cpu().numpy()

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """float32 [N, latent] -> images."""
        self.need("decode")
        network = self.networks["autoencoder"]
        inputs = torch.from_numpy(np.asarray(latents, np.float32)).to(self.device)
        if inputs.dim() != 2 or inputs.shape[1] != network.latent or not len(inputs):
            raise InputError(
                f"latents of shape {list(inputs.shape)}: this model takes [N, {network.latent}], "
                "at least one"
            )
        return self._arrays(network.decode, inputs)  # type: ignore[arg-type]

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Images -> probabilities float32 [N, classes] in the order of recipe.model.classes."""
        self.need("classify")
        logits = self.inference.run(self.networks["classifier"], self.to_inputs(images))
        return logits.softmax(1).cpu().numpy()

    def features(self, images: np.ndarray) -> np.ndarray:
        """Images -> the classifier's penultimate layer, float32 [N, features]."""
        self.need("classify")
        features: Callable[..., Tensor] = self.networks["classifier"].features  # type: ignore[assignment]
        return self.inference.run(features, self.to_inputs(images)).cpu().numpy()

    def restore(
        self,
        image: np.ndarray,
        *,
        sigma: float | None = None,
        strength: float = 1.0,
        tile: int | Literal["auto"] = "auto",
    ) -> np.ndarray:
        """One image [H, W, C], uint8 or uint16, of any size -> the same shape and type.

        C is 1 to 4; the last of 2 or 4 is alpha and passes through. A gray model restores the
        channels of a colour image one by one.
        sigma: noise level on the scale of 0 to 255; None estimates it from the image.
        strength: 0 gives the input, 1 the restored image.
        tile: side of the tiles in which large images are restored, pixels; 0 is all at once.
        """
        self.need("restore")
        if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or not image.size:
            raise InputError(f"image of shape {list(image.shape)}: expected [H, W, 1 to 4]")
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"image of {image.dtype}: expected uint8 or uint16")
        if not 0 <= strength <= 1:
            raise InputError(f"strength={strength}: must lie between 0 and 1")
        if sigma is not None and not 0 <= sigma <= 255:
            raise InputError(f"sigma={sigma}: must lie between 0 and 255")
        peak = np.iinfo(image.dtype).max
        alpha = image[..., -1:] if image.shape[2] in (2, 4) else image[..., :0]
        colour = image[..., : image.shape[2] - alpha.shape[2]]

        pixels = torch.from_numpy(colour.astype(np.float32)).permute(2, 0, 1).div_(peak / 2).sub_(1)
        planes = pixels[:, None] if self.recipe.data.channels == 1 else pixels[None]
        if planes.shape[1] != self.recipe.data.channels:  # a gray image for a colour model
            planes = planes.expand(-1, 3, -1, -1)
        if sigma is None:
            sigma = float(estimate_sigma(pixels[None]))
        restored = self.restore_tiles(planes, sigma, tile)
        if pixels.shape[0] == 1:
            restored = restored.mean(dim=1, keepdim=True)
        mixed = torch.lerp(pixels, restored.reshape(pixels.shape), strength)
        levels = mixed.add_(1).mul_(peak / 2).round_().clamp_(0, peak).permute(1, 2, 0).numpy()
        return np.concatenate([levels.astype(image.dtype), alpha], axis=2)

    def restore_tiles(self, planes: Tensor, sigma: float, tile: int | Literal["auto"]) -> Tensor:
        """Float [N, C, H, W] on the CPU -> restored; only a tile at a time is on the device.

        Tiles overlap by the network's receptive field, so that none of their seams can be seen:
        the result equals that of the whole image.
        """
        restorer = self.networks["restorer"]
        field: int = restorer.receptive_field  # type: ignore[assignment]
        margin = -(-field // 4) * 2  # half of it, and even
        side = _AUTO_TILE if tile == "auto" else tile
        if side == 0:
            side = max(planes.shape[-2:]) + 1 & ~1
        elif max(planes.shape[-2:]) > side and (side < 4 * margin or side % 2):
            raise InputError(f"tile={tile}: use 0, 'auto' or an even number from {4 * margin}")

        def restored(tiles: Tensor) -> Tensor:
            level = torch.full((len(tiles),), sigma, device=self.device)
            return self.inference.run(restorer, tiles, level)

        side = max(side + side % 2, 2 * margin + 2)  # where the image is no larger, it is one tile
        return tiled(restored, planes, side=side, margin=margin, stride=2, device=self.device)

    def _generator(self) -> tuple[Callable[..., Tensor], int]:
        """What makes images of latents, and of how many dimensions these are."""
        if "generator" in self.networks:
            network = self.networks["generator"]
            return network, network.latent  # type: ignore[return-value]
        network = self.networks["autoencoder"]
        return network.decode, network.latent  # type: ignore[return-value]

    def _mean(self, images: Tensor) -> Tensor:
        """The means of the posteriors of images."""
        return self.networks["autoencoder"].encode(images)[0]  # type: ignore[operator]

    def _arrays(self, function: Callable[..., Tensor], inputs: Tensor) -> np.ndarray:
        """The images that a function makes of rows, each pass brought home as bytes."""
        return np.concatenate([to_arrays(made) for made in self.inference.passes(function, inputs)])

    def to_inputs(self, images: np.ndarray) -> Tensor:
        """uint8 [N, H, W, C] of the model's own size and channels -> float32 on the device."""
        data = self.recipe.data
        expected = (data.size, data.size, data.channels)
        if images.dtype != np.uint8 or images.shape[1:] != expected or not len(images):
            raise InputError(
                f"images of {images.dtype} {list(images.shape)}: this model takes uint8 "
                f"[N, {', '.join(map(str, expected))}], at least one"
            )
        floats = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        return floats.mul_(2 / 255).sub_(1)


def to_arrays(images: Tensor) -> np.ndarray:
    """float [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]."""
    return to_bytes_range(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
