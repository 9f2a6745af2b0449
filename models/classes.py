"""Classes: the labels of a project, their English prompt names and their roles."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.errors import BadDataset, BadName
from models.names import FORMAT, NAME_LENGTH, clean_text

Role = Literal["ok", "ng", "other"]

OK_NAMES = frozenset({"ok", "good", "normal", "nominal", "free"})


class ClassSpec(BaseModel):
    """A class as tunings and artifacts know it.

    Attributes:
        name: shown to people, in any language.
        prompt_name: what the text encoder reads, in English.
        role: what the line may conclude from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prompt_name: str
    role: Role


def normalise_name(name: str) -> str:
    """Return the key under which two names are the same, such as "Scratch_A" and "scratch a"."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(c for c in folded if unicodedata.category(c) != FORMAT)
    return re.sub(r"[\s_\-]+", " ", visible).strip()


def default_role(name: str, ok_names: Collection[str] = ()) -> Role:
    """Return `ok` for the names in `ok_names` or `OK_NAMES`, `ng` for all others."""
    known = OK_NAMES | {normalise_name(ok) for ok in ok_names}
    return "ok" if normalise_name(name) in known else "ng"


def class_spec(name: str, *, prompt_name: str | None = None, role: Role | None = None) -> ClassSpec:
    """Validate `name` and fill in what is not given.

    The prompt name falls back on the name itself, with `_` and `-` read as spaces.

    Raises:
        BadName: empty, over 100 characters, or with control characters.
    """
    clean = _clean_name(name, "name")
    spoken = re.sub(r"[\s_\-]+", " ", clean if prompt_name is None else prompt_name)
    prompt = _clean_name(spoken, "prompt_name")
    return ClassSpec(name=clean, prompt_name=prompt, role=role or default_role(clean))


def _clean_name(name: str, field: str) -> str:
    clean = clean_text(name, field, what=f"class {field}", max_length=NAME_LENGTH)
    if not normalise_name(clean):
        raise BadName(
            f"The class {field} {clean!r} is empty.",
            fix="Give it at least one letter.",
            field=field,
        )
    return clean


def check_classes(classes: Sequence[ClassSpec]) -> None:
    """Refuse fewer than two classes, and two classes whose names people would read as one.

    Raises:
        BadDataset: fewer than two classes.
        BadName: two names, or two prompt names, are the same after `normalise_name`.
    """
    if len(classes) < 2:
        names = ", ".join(repr(spec.name) for spec in classes) or "none"
        raise BadDataset(
            f"A tuning needs at least 2 classes; found {len(classes)} ({names}).",
            fix="Add a folder of photographs for each further class, such as one of good parts.",
            field="classes",
        )
    for field in ("name", "prompt_name"):
        first: dict[str, str] = {}
        for spec in classes:
            value = getattr(spec, field)
            key = normalise_name(value)
            if key in first:
                raise BadName(
                    f"The class {field}s {first[key]!r} and {value!r} are the same"
                    " after normalisation.",
                    fix="Rename one of them, or merge the two classes.",
                    field=field,
                )
            first[key] = value
