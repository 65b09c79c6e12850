"""Every named recipe. A new one is a function and a line here (and a model file if it is new)."""

import json
from collections.abc import Callable

from genimg.errors import InputError, nearest
from genimg.recipe import Recipe
from genimg.recipes.classifier import classifier
from genimg.recipes.denoiser import dncnn, drunet, ffdnet
from genimg.recipes.detector import detector
from genimg.recipes.flow import flow
from genimg.recipes.frames import conv_lstm, conv_mixer, frame_vae, predrnn
from genimg.recipes.gan import (
    biggan_small,
    dcgan,
    deep_conv_gan,
    lsgan,
    mlp_gan,
    progan,
    r3gan,
    sagan,
    sngan,
    stylegan,
    wgan,
    wgan_gp,
)
from genimg.recipes.restorer import (
    colouriser,
    deblocker,
    deblurrer,
    enhancer,
    inpainter,
    restorer,
    upscaler,
)
from genimg.recipes.segmenter import segmenter
from genimg.recipes.stylist import adain
from genimg.recipes.translator import cyclegan, pix2pix
from genimg.recipes.vae import conv_vae, draw, hvae, iwae
from genimg.recipes.vq import vq_vae

RECIPES: dict[str, Callable[[], Recipe]] = {
    "mlp-gan": mlp_gan,
    "dcgan": dcgan,
    "deep-conv-gan": deep_conv_gan,
    "lsgan": lsgan,
    "wgan": wgan,
    "wgan-gp": wgan_gp,
    "sngan": sngan,
    "sagan": sagan,
    "biggan-small": biggan_small,
    "progan": progan,
    "stylegan": stylegan,
    "r3gan": r3gan,
    "flow": flow,
    "conv-vae": conv_vae,
    "iwae": iwae,
    "hvae": hvae,
    "draw": draw,
    "vq-vae": vq_vae,
    "ffdnet": ffdnet,
    "dncnn": dncnn,
    "drunet": drunet,
    "restorer": restorer,
    "deblocker": deblocker,
    "deblurrer": deblurrer,
    "enhancer": enhancer,
    "colouriser": colouriser,
    "inpainter": inpainter,
    "upscaler": upscaler,
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
    "adain": adain,
    "classifier": classifier,
    "segmenter": segmenter,
    "detector": detector,
    "conv-mixer": conv_mixer,
    "conv-lstm": conv_lstm,
    "predrnn": predrnn,
    "frame-vae": frame_vae,
}


def named(name: str) -> Recipe:
    """The recipe of that name with its defaults, or InputError with the nearest name."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]()


def from_json(text: str) -> Recipe:
    """The recipe that `Recipe.model_dump_json` wrote, or InputError."""
    try:
        tree = json.loads(text)
        name = str(tree["recipe"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{text[:40]!r}... is not a recipe's JSON") from None
    return type(named(name)).validated(tree)


def summary(recipe: Recipe) -> str:
    """What it is, in a line."""
    return (RECIPES[recipe.recipe].__doc__ or "").strip().splitlines()[0]
