"""All generators under one budget of processor time, judged alike: the table in docs/results.md.

    python tests/bench/families.py mnist|cifar DATA JUDGE MINUTES [-o FOLDER] [--only NAME ...]

JUDGE is a classifier's checkpoint folder or model of FOLDER/registry. How many images a minute
holds is measured by a short training of each; rates of learning and penalties go along the whole of
the training, so that its length has to be known before. What is there already is not done again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

SMALL = ["model.width=32", "train.batch_size=32"]
# The papers' rates are for hundreds of thousands of steps; here there are thousands.
FAMILIES = {
    "mlp-gan": ["data.size=32"],
    "dcgan": [],
    "deep-conv-gan": ["data.size=32", *SMALL, "train.lr=1e-3"],
    "lsgan": ["train.batch_size=32", "train.lr=2e-4"],
    "wgan": ["train.batch_size=32", "train.lr=5e-4"],
    "wgan-gp": ["train.batch_size=32", "train.lr=1e-3"],
    "sngan": [*SMALL, "train.lr=1e-3", "loss.critic_steps=1"],
    "sagan": [*SMALL, "train.lr=5e-4"],
    "biggan-small": [*SMALL, "train.lr=1e-3", "loss.critic_steps=1"],
    "progan": ["train.batch_size=32"],
    "stylegan": ["train.batch_size=32"],
    "r3gan": ["train.batch_size=32"],
    "flow": ["train.batch_size=32"],
    "conv-vae": [],
    "iwae": [],
    "hvae": [],
    "vq-vae": [],
}
DATA = {"mnist": ["data.channels=1", "data.fit=pad"], "cifar": ["data.augment=flip"]}
TRIED, BETWEEN = (1024, 5120), 20.0  # images of trials; seconds that the last one takes beyond
ROWS = {
    "fid": "FID", "kid": "KID", "precision": "precision", "recall": "recall",
    "density": "density", "coverage": "coverage", "gan_train": "GAN-train", "gan_test": "GAN-test",
    "intra_fid": "FID within classes", "authenticity": "authenticity",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=DATA)
    parser.add_argument("data")
    parser.add_argument("judge")
    parser.add_argument("minutes", type=float, help="of the processor, evaluation not among them")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/families"))
    parser.add_argument("--only", action="append", choices=FAMILIES, help="may be repeated")
    parser.add_argument("--gan-images", type=int, default=0, help="0: without GAN-train")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only or FAMILIES:
        if not (options.output / f"{name}.json").exists():
            try:
                measure(name, options)
            except subprocess.CalledProcessError as error:
                print(f"{name}: {error}; see {options.output / name}.log", file=sys.stderr)
    print(table(options.output))


def measure(name: str, options: argparse.Namespace) -> None:
    log = options.output / f"{name}.log"
    words = [name, *DATA[options.kind], *FAMILIES[name], "model.conditional=true"]
    common = [*words, "--data", options.data, "--workers", "0"]

    def tried(images: int) -> float:
        few = [f"train.images={images}", f"train.checkpoint_every={images}"]
        run = f"try-{name}-{images}"
        return genimg("train", *common, *few, "evaluation.samples=64", "--run", run, log=log)

    first, second = map(tried, TRIED)
    rate = (TRIED[1] - TRIED[0]) / max(0.5, second - first)
    more = TRIED[1] + int(rate * BETWEEN) // 1024 * 1024 + 1024
    last = tried(more)
    rate = (more - TRIED[1]) / (last - second)
    images = max(2048, int(rate * (options.minutes * 60 - first)) // 1024 * 1024)
    length = [f"train.images={images}", f"train.checkpoint_every={images}"]
    length += [f"train.ema_half_life={min(20_000, images // 20)}", "evaluation.samples=512"]
    spent = genimg("train", *common, *length, "--run", name, "--register", name, log=log)
    asked = ["--data", options.data, "--judge", options.judge, "--json"]
    if options.gan_images:
        asked += ["--gan-train", "--gan-images", str(options.gan_images)]
    found = options.output / f"{name}.scores"
    genimg("evaluate", name, *asked, log=log, out=found)
    scores = json.loads(found.read_text())
    told = {"words": words + length, "images": images, "seconds": spent, "scores": scores}
    (options.output / f"{name}.json").write_text(json.dumps(told, indent=1))


def genimg(*words: str, log: Path, out: Path | None = None) -> float:
    """Seconds of the processor that a command takes, on one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = Path(sys.executable).with_name("genimg")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("a") as said, (out or log).open("w" if out else "a") as printed:
        print("$ genimg", *words, file=said, flush=True)
        subprocess.run(
            [program, *words], cwd=log.parent, env=environment, stdout=printed, stderr=said,
            check=True,
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(folder: Path) -> str:
    """Markdown, the smallest FID first; behind them what the scores mean."""
    every = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    ranked = sorted(every.items(), key=lambda pair: pair[1]["scores"]["judge_fid"])
    lines = [
        f"| | {' | '.join(ROWS.values())} | images | minutes | images/s |",
        f"|---{'|---' * (len(ROWS) + 3)}|",
    ]
    for name, each in ranked:
        minutes = each["seconds"] / 60
        cost = f"{each['images']:,} | {minutes:.1f} | {each['images'] / each['seconds']:.0f}"
        lines.append(f"| `{name}` | {row(each['scores'])} | {cost} |")
    beside = ranked[0][1]["scores"].get("beside", {}) if ranked else {}
    lines += [f"| {name} | {row(scores)} | | | |" for name, scores in beside.items()]
    return "\n".join(lines)


def row(scores: dict[str, float]) -> str:
    found = (scores.get(f"judge_{key}") for key in ROWS)
    return " | ".join("" if value is None else f"{value:.4g}" for value in found)


if __name__ == "__main__":
    main()
