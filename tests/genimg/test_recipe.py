"""Recipes: what every one of them promises, what overrides take, and what refusals say."""

import json
import math
from typing import Literal, get_args, get_origin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_recipes import every_recipe, tiny

from genimg import recipes
from genimg.errors import InputError
from genimg.operations import OPERATIONS
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.section import allowed, flat, parse_value
from genimg.weightless import weightless

ALL_KEYS = [
    (name, key)
    for name in RECIPES
    for key in recipes.named(name).keys()  # noqa: SIM118  (it is no mapping)
    if key != "recipe"
]


@every_recipe
def test_every_key_is_described(name):
    undescribed = [
        key for key, field in recipes.named(name).keys().items() if not (field.description or "")
    ]
    assert undescribed == []


@every_recipe
def test_a_recipe_carries_its_own_name_and_a_one_line_summary(name):
    recipe = recipes.named(name)
    assert recipe.recipe == name
    assert 10 < len(recipes.summary(recipe)) <= 100


@every_recipe
def test_json_round_trip(name, tmp_path):
    recipe = tiny(name, "train.lr=3e-3")
    assert recipes.from_json(recipe.model_dump_json()) == recipe
    recipe.save(tmp_path / "recipe.json")
    assert recipes.from_json((tmp_path / "recipe.json").read_text()) == recipe


@every_recipe
def test_nothing_changes_later(name):
    recipe = recipes.named(name)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train = recipe.train
    other = recipe.override(["train.lr=0.5"])
    assert other.train.lr == 0.5
    assert recipe == recipes.named(name)


@every_recipe
def test_what_it_can_are_operations_and_its_objective_has_a_direction(name):
    recipe = recipes.named(name)
    assert recipe.can()
    assert set(recipe.can()) <= OPERATIONS.keys()
    assert recipe.objective[1] in ("min", "max")


def values_near(annotation: object) -> st.SearchStrategy[object]:
    """Values for a key: of its own type more often than not, but also of every other."""
    anything = (
        st.integers(-3, 2000)
        | st.floats(width=32)
        | st.booleans()
        | st.none()
        | st.sampled_from(["", "x", "crop", "1e-4", "nan", "inf", "[1, 2]", "{a: 1}", "2020-01-01"])
        | st.lists(st.floats(0, 300) | st.integers(0, 300) | st.text("ab", max_size=2), max_size=3)
    )  # fmt: skip
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation)) | anything
    return anything


@given(st.data())
def test_an_override_is_refused_by_name_or_round_trips(data):
    name, key = data.draw(st.sampled_from(ALL_KEYS))
    recipe = recipes.named(name)
    value = data.draw(values_near(recipe.keys()[key].annotation))
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        changed = recipe.override([f"{key}={text}"])
    except InputError as error:
        changed, refusal = recipe, str(error)
    else:
        refusal = key
    assert recipes.from_json(changed.model_dump_json()) == changed
    deciding = key == "model.network"  # its section comes with other keys
    assert deciding or set(changed.differences(recipe)) <= {key}
    assert (
        key.rpartition(".")[2] in refusal
    )  # some are refused by their section, which stands first
    assert "\n" not in refusal


REFUSED = [
    ("dcgan", "train.lr", "'train.lr' is not of the form key=value"),
    ("dcgan", "train.lrr=1", "unknown key 'train.lrr'; did you mean 'train.lr'?"),
    ("dcgan", "tran.seed=8", "unknown key 'tran.seed'; did you mean 'train.seed'?"),
    ("dcgan", "train=1", "unknown key 'train'; did you mean 'train.lr'?"),
    ("dcgan", "recipe=ffdnet", "unknown key 'recipe'; "),
    ("dcgan", "train.lr=-1", "train.lr=-1: input should be greater than 0"),
    ("dcgan", "train.lr=nan", "train.lr=nan: input should be a finite number"),
    ("dcgan", "train.lr=inf", "train.lr=inf: input should be a finite number"),
    ("dcgan", "train.lr=.inf", "train.lr=inf: input should be a finite number"),
    ("dcgan", "train.lr=fast", "train.lr='fast': input should be a valid number"),
    ("dcgan", "train.lr=[", "train.lr='[': not a YAML value"),
    ("dcgan", "train.images=2.5", "train.images=2.5: input should be a valid integer"),
    ("dcgan", "data.size=4", "data.size=4: input should be greater than or equal to 8"),
    ("dcgan", "data.size=30", "data.size=30: input should be a multiple of 4"),
    ("dcgan", "data.size=24", "data.size=24: dcgan takes 16, 32, 64, 128 or 256"),
    ("dcgan", "data.channels=2", "data.channels=2: input should be 1 or 3"),
    ("dcgan", "data.fit=crop it", "data.fit='crop it': input should be 'resize', 'pad' or 'crop'"),
    ("dcgan", "data.source=2012", "data.source=2012: input should be a valid string"),
    ("ffdnet", "noise.low=60", "noise.low=60: must be at most noise.high=55"),
    ("ffdnet", "evaluation.sigmas=25", "evaluation.sigmas=25: give a list, as [25]"),
    ("ffdnet", "evaluation.sigmas=[]", "evaluation.sigmas=[]: tuple should have at least 1 item"),
    ("ffdnet", "evaluation.sigmas=[15,x]", "evaluation.sigmas.1='x': input should be a valid"),
    ("ffdnet", "evaluation.sigmas=[-1]", "evaluation.sigmas.0=-1: input should be greater than"),
    ("restorer", "evaluation.tests={true: []}", "evaluation.tests: True names nothing; give"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "assignment", "message"), REFUSED)
def test_a_refusal_names_key_value_and_what_is_allowed(name, assignment, message):
    with pytest.raises(InputError) as caught:
        recipes.named(name).override([assignment])
    assert str(caught.value).startswith(message)


ACCEPTED = [
    ("dcgan", "train.lr=1e-4", "train.lr", 1e-4),
    ("dcgan", "train.lr=3E-5", "train.lr", 3e-5),
    ("dcgan", "train.images=1e6", "train.images", 1_000_000),
    ("dcgan", "train.images=1_000", "train.images", 1000),
    ("dcgan", "train.compile=true", "train.compile", True),
    ("dcgan", "train.clip_norm=null", "train.clip_norm", None),
    ("dcgan", " data.source =a=b", "data.source", "a=b"),
    ("dcgan", "data.source='2012'", "data.source", "2012"),
    ("ffdnet", "evaluation.sigmas=[15,25]", "evaluation.sigmas", (15.0, 25.0)),
    ("classifier", "model.classes=[cat, dog]", "model.classes", ("cat", "dog")),
    ("restorer", "evaluation.tests={15: [], .5: []}", "evaluation.tests.15", ()),
    ("restorer", "evaluation.tests={15: [], .5: []}", "evaluation.tests.0.5", ()),
]


@pytest.mark.parametrize(("name", "assignment", "key", "value"), ACCEPTED)
def test_values_are_read_as_yaml(name, assignment, key, value):
    got = flat(recipes.named(name).override([assignment]).model_dump())[key]
    assert got == value
    assert type(got) is type(value)


def test_later_overrides_win_and_earlier_ones_stay():
    recipe = recipes.named("dcgan").override(["train.lr=1", "train.seed=3", "train.lr=2"])
    assert (recipe.train.lr, recipe.train.seed) == (2.0, 3)


def test_overrides_are_judged_together_not_one_by_one():
    recipe = recipes.named("ffdnet").override(["noise.low=70", "noise.high=80"])
    assert (recipe.noise.low, recipe.noise.high) == (70, 80)


@given(st.floats(1e-12, 1e12))
def test_any_notation_of_a_float_is_read_exactly(number):
    for text in (repr(number), f"{number:.17e}", f"{number:.17E}"):
        assert parse_value("train.lr", text) == number


def test_differences_are_dotted_and_in_both_directions():
    one, other = recipes.named("dcgan"), recipes.named("dcgan").override(["model.width=8"])
    assert one.differences(other) == {"model.width": (32, 8)}
    assert other.differences(one) == {"model.width": (8, 32)}
    assert one.differences(one) == {}


def test_differences_of_two_kinds_of_recipe_name_what_only_one_has():
    found = recipes.named("dcgan").differences(recipes.named("ffdnet"))
    assert found["recipe"] == ("dcgan", "ffdnet")
    assert found["loss.r1"] == (0.1, None)
    assert found["noise.high"] == (None, 55.0)


def test_what_a_field_takes_in_words():
    keys = recipes.named("dcgan").keys()
    assert allowed(keys["data.fit"]) == "resize | pad | crop"
    assert allowed(keys["data.size"]) == "int, at least 8, at most 1024, a multiple of 4"
    assert allowed(keys["train.lr"]) == "float, above 0"
    assert allowed(keys["train.clip_norm"]).startswith("float | none")
    sigmas = recipes.named("ffdnet").keys()["evaluation.sigmas"]
    assert allowed(sigmas) == "list of float, at least 0, at most 255"


def test_an_unknown_name_of_a_recipe_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown recipe 'dcgna'; did you mean 'dcgan'\?"):
        recipes.named("dcgna")


def test_keys_of_a_written_recipe_that_this_version_does_not_know_are_refused():
    tree = json.loads(recipes.named("dcgan").model_dump_json())
    tree["train"]["lrs"] = 1
    with pytest.raises(InputError, match=r"unknown key 'train\.lrs'; did you mean 'lr'\?"):
        recipes.from_json(json.dumps(tree))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"recipe": 3}', '{"recipe": "dcgan"}'])
def test_what_is_no_written_recipe_is_refused(text):
    with pytest.raises(InputError):
        recipes.from_json(text)


def test_classes_come_from_the_data_and_must_agree_with_it():
    recipe = recipes.named("classifier")
    pets = {"label": ("cat", "dog")}
    assert recipe.resolve(pets).model.classes == ("cat", "dog")
    assert recipe.resolve(pets).resolve(pets).model.classes == ("cat", "dog")
    with pytest.raises(InputError, match=r"model\.classes=\['cat', 'dog'\] but the data has"):
        recipe.resolve(pets).resolve({"label": ("dog", "cat")})


def test_defaults_of_the_schedule_are_finite_and_positive():
    for name in RECIPES:
        train = recipes.named(name).train
        assert math.isfinite(train.lr)
        assert train.warmup < train.images
        assert isinstance(recipes.named(name), Recipe)


def test_beta1_of_a_dcgan_is_that_of_both_optimizers():
    for values, beta1 in ((["loss.beta1=0"], 0.0), ([], 0.5)):
        method = recipes.named("dcgan").override(values).method(torch.device("cpu"))
        found = {one.param_groups[0]["betas"] for one in method.optimizers.values()}
        assert found == {(beta1, 0.99)}


@pytest.mark.parametrize("name", ["drunet", "vq-vae", "classifier"])
def test_what_models_can_do_is_known_without_weights(name):
    with weightless():
        networks = recipes.named(name).networks()
    assert {each.device.type for net in networks.values() for each in net.parameters()} == {"meta"}
    layer = torch.nn.Linear(4, 4)  # afterwards weights are made as ever
    assert layer.weight.abs().max() > 0
    assert torch.randn(3).device.type == "cpu"


def test_keys_that_change_nothing_are_known_with_the_reason():
    flow, dcgan = recipes.named("flow"), recipes.named("dcgan")
    assert flow.idle().keys() == {"loss.drop", "sampler.guidance"}
    assert not flow.override(["model.conditional=true"]).idle()
    assert dcgan.idle().keys() == {"loss.drop"}
    assert dcgan.override(["loss.r1=0"]).idle()["loss.r1_every"] == "loss.r1 and loss.r2 are 0"
    text = ["model.text=true", "data.scenes=captioned"]
    assert not dcgan.override(text).idle()
    for name in recipes.RECIPES:
        keys = flat(recipes.named(name).model_dump())
        assert recipes.named(name).idle().keys() <= keys.keys(), name
