"""What recipes have in common that tell what is in an image, and where."""

from genimg.errors import InputError
from genimg.recipe import Recipe


def refuse_sides(recipe: Recipe, depth: int, stride: int) -> None:
    """ValueError where images cannot be halved so often, or what is left cannot be normalised."""
    size = recipe.data.size
    if size % stride:
        raise ValueError(
            f"data.size={size}: with model.depth={depth} {recipe.recipe} takes multiples of"
            f" {stride}"
        )
    if size == stride and recipe.train.batch_size == 1:
        raise ValueError(
            f"train.batch_size=1: with data.size={size} and model.depth={depth} a channel is left"
            " with one value, of which there is no variance; use batches of 2 or more"
        )


def named_classes(
    ours: tuple[str, ...], theirs: tuple[str, ...], key: str = "model.classes"
) -> tuple[str, ...]:
    """The model's classes, or those of the data; InputError where they do not agree.

    Numbers are no names: a model may name more classes than numbered data happen to show. key: that
    of the model's
    """
    numbered = theirs == tuple(str(number) for number in range(len(theirs)))
    if not ours or ours == theirs or (numbered and len(theirs) <= len(ours)):
        return ours or theirs
    raise InputError(
        f"{key}={list(ours)} but the data has {list(theirs)}; "
        f"leave {key} out to take those of the data"
    )
