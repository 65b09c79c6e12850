"""The `genimg` command: every verb of jobs/ under one name."""

import typer

from jobs import models
from jobs.console import run
from jobs.demo import demo
from jobs.evaluate import evaluate
from jobs.prepare import prepare
from jobs.recipes import recipes
from jobs.restore import restore
from jobs.sample import sample
from jobs.serve import serve
from jobs.train import train
from jobs.tune import tune

app = typer.Typer(
    help="Train, tune, keep and serve image generators and restorers on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
)
for verb in (recipes, train, tune, evaluate, sample, restore, serve, prepare, demo):
    app.command()(verb)
app.add_typer(models.app, name="models")


def main() -> None:
    run(app)
