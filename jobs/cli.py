"""The `genimg` command: every verb of jobs/ under one name."""

from genimg.operations import OPERATIONS
from jobs import keys, models
from jobs.compare import compare
from jobs.compose import compose
from jobs.console import run
from jobs.degrade import degrade
from jobs.demo import demo
from jobs.directions import directions
from jobs.evaluate import evaluate
from jobs.operate import verb
from jobs.prepare import prepare
from jobs.recipes import recipes
from jobs.serve import serve
from jobs.train import train
from jobs.tune import tune
from jobs.wording import Verbs

app = Verbs(
    help="Train, tune, keep and serve image generators and restorers on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
)
LIFE, DOING = "The life of a model", "Operations"
for command in (
    recipes,
    train,
    tune,
    evaluate,
    compare,
    directions,
    serve,
    prepare,
    degrade,
    compose,
    demo,
):
    app.command(rich_help_panel=LIFE)(command)
app.add_typer(models.app, name="models", rich_help_panel=LIFE)
app.add_typer(keys.app, name="keys", rich_help_panel=LIFE)
for operation in OPERATIONS.values():
    app.command(operation.name, rich_help_panel=DOING)(verb(operation))


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
