"""Images are mixed with their partners, and what is beside both tells what is then seen."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from genimg import recipes
from genimg.augmentations.mixing import CutMix, Mixup, beta, partners
from genimg.augmentations.pasting import CopyPaste
from genimg.contracts import UNKNOWN
from genimg.data.augment import augment, augmenting, varied
from genimg.data.beside import BOXES, SEEN
from genimg.data.grids import FRAMES
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset, told_by
from genimg.data.scenes import annotate
from genimg.errors import InputError
from genimg.rng import fold

COUNT, SIDE = 400, 32
KEYS = fold(3, torch.arange(COUNT))
LABELS = F.one_hot(torch.arange(COUNT) % 5, 5).float()
MIXED = "data.augmentations=[{kind: mixup}, {kind: cutmix, probability: 0.5, begin: 0}]"


def black_and_white() -> torch.Tensor:
    """uint8 [COUNT, 3, SIDE, SIDE], of each pair one image black and one white."""
    values = torch.tensor([0, 255], dtype=torch.uint8).repeat(COUNT // 2)
    return values[:, None, None, None].repeat(1, 3, SIDE, SIDE)


def scenes_by_object(count: int, start: int = 0) -> dict[str, torch.Tensor]:
    """Scenes whose every object has a gray of its own within a pair; background: 0."""
    scenes = annotate(fold(start, torch.arange(count)), SIDE)
    grays = scenes.masks + 50 * (torch.arange(count) % 2)[:, None, None]
    boxes = torch.zeros(count, BOXES, 5)
    boxes[..., 0] = -1
    seen = scenes.boxes[..., 2] > 0
    boxes[:, : seen.shape[1], 0] = scenes.object_classes.where(seen, -1).float()
    boxes[:, : seen.shape[1], 1:] = scenes.boxes
    masks = scenes.class_masks().to(torch.uint8)
    return {"image": (grays * (scenes.masks > 0)).to(torch.uint8)[:, None],
            "mask": masks[:, None], "boxes": boxes}  # fmt: skip


def of_object(scenes: dict[str, torch.Tensor], image: int) -> dict[int, list[float]]:
    """Each object's box, by its gray, as found pixel by pixel; of scenes as they are drawn."""
    grays, found = scenes["image"][image, 0], {}
    for gray in grays.unique().tolist():
        down, across = (grays == gray).nonzero().T.tolist()
        if gray:
            found[gray] = [min(across), min(down), max(across) + 1.0, max(down) + 1.0]
    return found


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1, 3])
def test_shares_are_of_the_beta_distribution(alpha):
    shares = beta(fold(1, torch.arange(20_000)), alpha)
    assert shares.isfinite().all()
    assert 0 <= shares.min() <= shares.max() <= 1
    for place in (0.001, 0.1, 0.5, 0.8, 0.99):
        below = (shares < place).float().mean().item()
        assert below == pytest.approx(stats.beta(alpha, alpha).cdf(place), abs=0.012)


def test_partners_are_neighbours():
    assert partners(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


def test_mixup_takes_pixels_and_labels_in_the_same_shares():
    stored = {"image": black_and_white()[..., :8, :8], "label": LABELS}
    stored |= {"target": stored["image"], "frames": stored["image"].repeat(1, FRAMES, 1, 1)}
    made = varied(stored, KEYS, Mixup(alpha=1))
    values = made["image"][:, 0, 0, 0].float() / 255
    white = torch.arange(COUNT) % 2 == 1
    other = torch.where(white, 1 - values, values)
    own = made["label"][torch.arange(COUNT), torch.arange(COUNT) % 5]
    torch.testing.assert_close(own, 1 - other, atol=0.002, rtol=0)
    torch.testing.assert_close(made["label"], torch.lerp(LABELS, partners(LABELS), other[:, None]),
                               atol=0.002, rtol=0)  # fmt: skip
    torch.testing.assert_close(made["label"].sum(dim=1), torch.ones(COUNT))
    assert torch.equal(made["target"], made["image"])
    assert torch.equal(made["frames"][:, 3:6], made["image"])


def test_cutmix_shows_a_square_of_the_partner_and_labels_by_its_area():
    masks = (torch.arange(COUNT) % 2 * 3).to(torch.uint8)[:, None, None, None]
    stored = {"image": black_and_white(), "label": LABELS, "mask": masks.repeat(1, 1, SIDE, SIDE)}
    made = varied(stored, KEYS, CutMix())
    assert torch.equal(made["mask"] == 3, made["image"][:, :1] == 255)
    other = made["image"][:, 0] != stored["image"][:, 0]
    rows, columns = other.any(dim=2), other.any(dim=1)
    assert torch.equal(other, rows[:, :, None] & columns[:, None])
    free = rows[:, [0, -1]].any(dim=1) | columns[:, [0, -1]].any(dim=1)  # nothing cut off
    sides = rows.sum(dim=1) - columns.sum(dim=1)
    assert sides[~free].abs().max() <= 1
    share = other.float().mean(dim=(1, 2))
    torch.testing.assert_close(made["label"],
                               torch.lerp(LABELS, partners(LABELS), share[:, None]))  # fmt: skip
    torch.testing.assert_close(made["label"].sum(dim=1), torch.ones(COUNT))
    whole = share[~free]  # uniform, but large ones seldom fit in
    assert whole.min() < 0.02
    assert whole.max() > 0.5


def test_without_boxes_classes_are_pasted_where_the_mask_shows_them():
    scenes = scenes_by_object(COUNT)
    stored = {"image": scenes["image"] + 100, "mask": scenes["mask"]}  # background 100
    stored["mask"][::3, :, :4] = UNKNOWN
    made = varied(stored, KEYS, CopyPaste())
    pasted = made["image"] != stored["image"]
    others = {column: partners(values) for column, values in stored.items()}
    for column in stored:
        assert torch.equal(made[column][pasted], others[column][pasted])
        assert torch.equal(made[column][~pasted], stored[column][~pasted])
    kinds = others["mask"][pasted]
    assert 0 < kinds.min() <= kinds.max() < UNKNOWN
    taken = [
        (pasted & (others["mask"] == kind)).flatten(1).any(dim=1)[there].float().mean().item()
        for kind in range(1, 6)
        for there in ((others["mask"] == kind).flatten(1).any(dim=1),)
    ]
    assert taken == pytest.approx([0.5] * 5, abs=0.12)
    for image, kind in [(0, 1), (1, 2), (2, 3)]:  # all of a class or none of it
        where = others["mask"][image] == kind
        assert pasted[image][where].float().mean().nan_to_num() in (0, 1)


def test_pasted_objects_have_their_boxes_and_covered_ones_what_is_seen():
    scenes = scenes_by_object(200)
    made = varied(scenes, KEYS[:200], CopyPaste(share=1))
    came = gone = shrunk = 0
    for image in range(200):
        mine, theirs = of_object(scenes, image), of_object(scenes, image ^ 1)
        seen = of_object(made, image)
        listed = made["boxes"][image]
        listed = {tuple(box[1:].tolist()): int(box[0]) for box in listed if box[0] >= 0}
        kept = {tuple(box): gray for gray, box in seen.items()}
        for box, kind in listed.items():  # each is around an object that is seen, of its class
            assert box in kept, (image, box, seen)
            at = made["image"][image, 0] == kept[box]
            assert (made["mask"][image, 0][at] == kind + 1).all()
        for gray in seen.keys() & theirs.keys():  # whole, with its box
            assert seen[gray] == theirs[gray]
            assert tuple(seen[gray]) in listed
            came += 1
        for gray, before in mine.items():
            now = made["image"][image, 0] == gray
            left = now.sum() / (scenes["image"][image, 0] == gray).sum()
            if gray in seen and left >= SEEN:
                assert tuple(seen[gray]) in listed
                shrunk += seen[gray] != before
            else:
                gone += 1
                assert gray not in seen or tuple(seen[gray]) not in listed
    assert came > 50
    assert min(gone, shrunk) > 5


def test_no_more_is_pasted_than_there_is_room_for():
    boxes = torch.zeros(2, BOXES, 5)
    boxes[..., 0] = -1
    boxes[0, :-1] = torch.tensor([0.0, 0, 0, 1, 1])  # one more may come
    boxes[1, :3] = torch.tensor([[1.0, 8, 8, 9, 9], [1, 12, 8, 13, 9], [1, 16, 8, 17, 9]])
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)
    mask[0, 0, 0, 0] = 1
    mask[1, 0, 8, 8:20:4] = 2
    stored = {"image": mask * 100, "mask": mask, "boxes": boxes}
    made = varied(stored, KEYS[:2], CopyPaste(share=1))
    assert ((made["boxes"][..., 0] >= 0).sum(dim=1)).tolist()[0] == BOXES
    assert made["boxes"][0, -1].tolist() == [1, 8, 8, 9, 9]
    assert (made["mask"][0] == 2).sum() == (made["image"][0] == 200).sum() == 1


@pytest.mark.parametrize(
    ("name", "augmentation"),
    [("mixup", Mixup()), ("cutmix", CutMix()), ("copy-paste", CopyPaste())],
)
def test_strength_and_chance_decide_how_much_is_mixed(name, augmentation):
    scenes = scenes_by_object(COUNT)
    stored = {"image": scenes["image"], "mask": scenes["mask"]}
    stored = {"image": stored["image"]} if name == "mixup" else stored
    rising = augmentation.model_copy(update={"begin": 0.0})
    start = varied(stored, KEYS, rising, torch.zeros(COUNT))
    assert all(torch.equal(start[column], values) for column, values in stored.items())
    made = varied(stored, KEYS, augmentation)
    end = varied(stored, KEYS, rising, torch.ones(COUNT))
    assert all(torch.equal(end[column], values) for column, values in made.items())
    some = varied(stored, KEYS, augmentation.model_copy(update={"probability": 0.3}))
    kept = (some["image"] == stored["image"]).flatten(1).all(dim=1)
    assert torch.equal(some["image"][~kept], made["image"][~kept])
    assert 0.65 < kept.float().mean() < 0.9
    half = varied(stored, KEYS, rising, torch.full((COUNT,), 0.5))["image"]
    off, whole = ((each != stored["image"]).float().mean() for each in (half, made["image"]))
    assert off < whole


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("classifier", MIXED),
        ("segmenter", "data.augmentations=[{kind: affine}, {kind: cutmix}, {kind: copy-paste}]"),
        ("detector", "data.augmentations=[{kind: copy-paste, end: 0.2}, {kind: light}]"),
    ],
)
def test_any_number_of_workers_mixes_alike_and_several_batches_in_one_go(name, listed):
    recipe = recipes.named(name).override([listed, "data.size=16", "train.images=320"])
    recipe = recipe.resolve(*told_by(recipe.data, recipe.columns))

    def loader(rank: int = 0, world: int = 1) -> Loader:
        return Loader(
            open_dataset(recipe.data, recipe.columns), batch_size=14, seed=0,
            device=torch.device("cpu"), augment=augmenting(recipe), rank=rank, world=world,
            together=recipe.together,
        )  # fmt: skip

    whole = loader().batches(140, 3)
    assert tuple(whole.rows) == recipe.wants
    one_by_one = [loader().batch(start).rows for start in (140, 154, 168)]
    for column, values in whole.rows.items():
        assert torch.equal(values, torch.cat([rows[column] for rows in one_by_one]))
    for world in (2, 3, 7):
        parts = [loader(rank, world).batch(140).rows for rank in range(world)]
        for column, values in one_by_one[0].items():
            assert torch.equal(values, torch.cat([rows[column] for rows in parts]))


def test_the_schedule_follows_positions_up_to_where_burn_in_ends():
    recipe = recipes.named("dcgan").override(
        ["data.augmentations=[{kind: mixup, alpha: 100, begin: 0}]", "train.images=800",
         "train.burn_in=0.5"]
    )  # fmt: skip
    images = {"image": black_and_white()[:8]}
    shares = []
    for start in (0, 200, 400, 600):
        made = augmenting(recipe)(images, KEYS[:8], torch.full((8,), start))["image"]
        off = (made.float() - images["image"].float()).abs() / 255
        shares.append(off.mean().item())
    assert shares == pytest.approx([0, 0.25, 0.5, 0.5], abs=0.02)


def test_cross_entropy_of_shares_is_that_of_both_labels_by_share():
    recipe = recipes.named("classifier").override([MIXED, "data.size=16", "model.width=8"])
    recipe = recipe.resolve({"label": tuple("abcde")})
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    labels = torch.arange(20) % 5
    stored = {"image": images, "label": labels}
    soft = augmenting(recipe)(stored, KEYS[:20], torch.full((20,), 10**6))["label"]
    assert torch.equal(labels, torch.arange(20) % 5)
    mine, theirs = soft[torch.arange(20), labels], soft[torch.arange(20), partners(labels)]
    torch.testing.assert_close(mine + theirs, torch.ones(20))
    logits = torch.randn(20, 5)
    one, other = (F.cross_entropy(logits, each, reduction="none")
                  for each in (labels, partners(labels)))  # fmt: skip
    torch.testing.assert_close(F.cross_entropy(logits, soft), (mine * one + theirs * other).mean())


def test_data_without_masks_is_refused_for_pasting():
    recipe = recipes.named("detector").override(["data.augmentations=[{kind: copy-paste}]"])
    assert recipe.columns == ("image", "boxes", "mask")
    assert recipe.wants == ("image", "boxes")
    stacked = recipe.data.model_copy(update={"stack": True})
    with pytest.raises(InputError, match="wanted are image, boxes and mask"):
        told_by(stacked, recipe.columns)


@pytest.mark.parametrize(
    ("name", "listed", "message"),
    [
        ("segmenter", "[{kind: mixup}]", r"augmentations\.0: kind=mixup: segmenter learns from"
         r" mask, and a pixel is of one class, not of two in part"),
        ("detector", "[{kind: light}, {kind: mixup}]", r"augmentations\.1: kind=mixup: .* boxes"),
        ("detector", "[{kind: cutmix}]", r"cuts through objects, .* use copy-paste"),
        ("classifier", "[{kind: copy-paste}]", r"learns from label, and an image's class does not"),
        ("frame-vae", "[{kind: copy-paste}]", r"from frames, and what is pasted would not move"),
        ("dcgan-by-class", "[{kind: mixup}]", r"takes whole labels, not shares"),
        ("dcgan-odd", "[{kind: cutmix}]", r"batch_size=33: .* a multiple of 2"),
        ("classifier", "[{kind: mixup, alpha: 0}]", r"alpha=0: input should be greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused(name, listed, message):
    more = {"dcgan-by-class": "model.conditional=true", "dcgan-odd": "train.batch_size=33"}
    recipe = recipes.named(name.removesuffix("-by-class").removesuffix("-odd"))
    recipe = recipe.override([more[name]] if name in more else [])
    with pytest.raises(InputError, match=message):
        recipe.override([f"data.augmentations={listed}"])


def test_packs_and_pairs_stay_together():
    recipe = recipes.named("dcgan").override(
        ["loss.pack=3", "train.batch_size=60", "data.augmentations=[{kind: mixup}]"]
    )
    assert recipe.together == 6
    assert recipe.override(["data.augmentations=[]"]).together == 3


@pytest.mark.parametrize("override", ["cyclegan task=folders", "adain styles=folders"])
def test_pairs_of_two_folders_stay_together_too(override):
    name, folders = override.split()
    recipe = recipes.named(name).override([folders, "data.augmentations=[{kind: mixup}]"])
    assert recipe.together == 2
    assert recipe.override(["data.augmentations=[]"]).together == 1


def test_what_is_given_stays_as_it_is():
    stored = scenes_by_object(8)
    before = {column: values.clone() for column, values in stored.items()}
    augment(stored, KEYS[:8], "none", 0, [CopyPaste(share=1)])
    assert all(torch.equal(stored[column], values) for column, values in before.items())
