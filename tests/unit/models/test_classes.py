"""Classes: which names are the same, which are refused, and what their roles are."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classes import (
    check_classes,
    class_spec,
    default_role,
    normalise_name,
)
from models.errors import BadDataset, BadName
from models.names import NAME_LENGTH


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Scratch_A", "scratch a"),
        ("scratch-a", "scratch   a"),
        ("straße", "STRASSE"),
        ("é", "e\u0301"),
        ("ｶﾞ", "ガ"),
        ("①", "1"),
        (" ok ", "OK"),
    ],
)
def test_names_that_people_read_as_one(first: str, second: str) -> None:
    assert normalise_name(first) == normalise_name(second)
    with pytest.raises(BadName) as caught:
        check_classes([class_spec(first), class_spec("other"), class_spec(second)])
    assert caught.value.field in {"name", "prompt_name"}


@pytest.mark.parametrize("pair", ["a b", "きず きす", "🔥 🧯", "scratch scratches"])
def test_names_that_are_two(pair: str) -> None:
    check_classes([class_spec(name) for name in pair.split()])


def test_prompt_names_must_differ_too() -> None:
    classes = [class_spec("きず", prompt_name="scratch"), class_spec("傷", prompt_name="Scratch")]

    with pytest.raises(BadName, match="prompt_names 'scratch' and 'Scratch'") as caught:
        check_classes(classes)
    assert caught.value.field == "prompt_name"


@pytest.mark.parametrize(("names", "found"), [([], "0 (none)"), (["good"], "1 ('good')")])
def test_a_tuning_needs_two_classes(names: list[str], found: str) -> None:
    with pytest.raises(BadDataset) as caught:
        check_classes([class_spec(name) for name in names])
    assert found in caught.value.problem


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("OK", "ok"),
        ("Good", "ok"),
        ("normal", "ok"),
        ("free", "ok"),
        ("scratch", "ng"),
        ("okay", "ng"),
    ],
)
def test_the_roles_of_the_usual_names(name: str, role: str) -> None:
    assert default_role(name) == role
    assert class_spec(name).role == role


def test_a_name_can_be_said_to_be_good() -> None:
    assert default_role("Blank_Part", ["blank part"]) == "ok"
    assert default_role("scratch", ["blank part"]) == "ng"
    assert class_spec("good", role="other").role == "other"


def test_a_prompt_name_falls_back_on_the_name() -> None:
    assert class_spec("deep_scratch-A").prompt_name == "deep scratch A"
    assert class_spec("きず", prompt_name=" deep  scratch ").prompt_name == "deep scratch"
    assert class_spec(" e\u0301 ").name == "é"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " _-"}, "name"),
        ({"name": "\u200b"}, "name"),
        ({"name": "_\u200d"}, "name"),
        ({"name": "a", "prompt_name": ""}, "prompt_name"),
        ({"name": "n" * (NAME_LENGTH + 1)}, "name"),
        ({"name": "a", "prompt_name": "n" * (NAME_LENGTH + 1)}, "prompt_name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "a\udcffb"}, "name"),
        ({"name": "a", "prompt_name": "a\x1bb"}, "prompt_name"),
    ],
)
def test_names_that_cannot_be_used(values: dict[str, str], field: str) -> None:
    with pytest.raises(BadName) as caught:
        class_spec(**values)
    assert caught.value.field == field
    assert str(caught.value).encode()  # can be printed


def test_the_longest_name() -> None:
    assert class_spec("n" * NAME_LENGTH).name == "n" * NAME_LENGTH


@given(st.text())
def test_a_name_is_used_or_refused(name: str) -> None:
    try:
        spec = class_spec(name)
    except BadName:
        return
    assert 0 < len(spec.name) <= NAME_LENGTH
    assert class_spec(spec.name) == spec


@given(st.text(string.ascii_letters + " _-", min_size=1))
def test_case_and_separators_do_not_tell_names_apart(name: str) -> None:
    assert normalise_name(name.upper().replace(" ", "_")) == normalise_name(name.lower())
