"""Labels as people write them: a class, shares of several, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genimg.errors import InputError
from genimg.labels import shares_of
from genimg.operations.drawing import Interpolate, Sample

PETS = ("cat", "dog", "owl", "a,b", "x=1", "big cat")


@pytest.mark.parametrize(
    ("label", "shares"),
    [
        ("dog", {"dog": 1}),
        ("cat=0.5,dog=0.5", {"cat": 0.5, "dog": 0.5}),
        (" cat = 3 , owl = 1 ", {"cat": 0.75, "owl": 0.25}),
        ("cat,dog", {"cat": 0.5, "dog": 0.5}),
        ("cat,cat,dog,owl", {"cat": 0.5, "dog": 0.25, "owl": 0.25}),
        ("a,b", {"a,b": 1}),
        ("x=1", {"x=1": 1}),
        ("x=1=3,big cat=1", {"x=1": 0.75, "big cat": 0.25}),
        ("cat=1e-300", {"cat": 1}),
    ],
)
def test_a_label_is_a_class_or_shares_of_several(label, shares):
    assert dict(zip(PETS, shares_of(label, PETS), strict=True)) == pytest.approx(
        dict.fromkeys(PETS, 0) | shares
    )


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("cta", "label='cta': unknown class 'cta'; did you mean 'cat'?"),
        ("horse", "label='horse': unknown class 'horse'; known: a,b, big cat, cat"),
        ("cat,doge=2", "label='cat,doge=2': unknown class 'doge'; did you mean 'dog'?"),
        ("cat=0", "label='cat=0': the share of cat is '0'; give a number above 0"),
        ("cat=-1", "label='cat=-1': the share of cat is '-1'; give a number above 0"),
        ("cat=much", "the share of cat is 'much'"),
        ("cat=", "the share of cat is ''"),
        ("cat=nan", "the share of cat is 'nan'"),
        ("cat=inf", "the share of cat is 'inf'"),
        ("cat,", "unknown class ''"),
        ("cat=0.5,dog", "label='cat=0.5,dog': give every class its share, or none"),
    ],
)
def test_what_is_no_label_is_refused_with_the_nearest(label, message):
    with pytest.raises(InputError) as refused:
        shares_of(label, PETS)
    assert message in str(refused.value)


def test_names_are_found_as_they_are_typed():
    """With blanks around them or not, and in whichever form Unicode has for them."""
    names = (" lead", "cafe\u0301", "x=1 ")
    assert shares_of("lead", names) == shares_of(" lead", names) == (1, 0, 0)
    assert shares_of("caf\u00e9=1,lead=3", names) == (0.75, 0.25, 0)
    assert shares_of("x=1", names) == (0, 0, 1)


@given(
    st.dictionaries(
        st.sampled_from([pet for pet in PETS if "," not in pet]), st.floats(1e-6, 1e6), min_size=1
    )
)
def test_shares_add_up_to_one_and_keep_their_proportions(parts):
    shares = shares_of(",".join(f"{name}={part}" for name, part in parts.items()), PETS)
    assert sum(shares) == pytest.approx(1)
    total = sum(parts.values())
    for name, share in zip(PETS, shares, strict=True):
        assert share == pytest.approx(parts.get(name, 0) / total)


def test_a_number_is_the_name_of_a_class_and_nothing_else_is():
    assert Sample(label=7).label == "7"
    assert Interpolate(label=0, to_label=10).to_label == "10"
    for value in (True, 1.5, ["7"]):
        with pytest.raises(ValidationError):
            Sample(label=value)
