"""What the options of `shotline bench` say, read and checked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from models.bench.cells import ACROSS, Protocol
from models.bench.data import SourceRef
from models.errors import BadInput

Value = TypeVar("Value", int, float)

_MOST_SHOTS, _MAX_SEED = 10_000, 2**63 - 1
_GROUPS_OF_METHODS = ("all", "all-text", "baselines")


def read_shots(text: str) -> list[int]:
    """Read numbers of training images, such as `1,2,4`.

    Raises:
        BadInput: naming the value that is none.
    """
    return _values(text, "shots", int, lambda n: 1 <= n <= _MOST_SHOTS, "whole numbers from 1")


def read_taus(text: str) -> list[float]:
    """Read taus, such as `1,0.25`.

    Raises:
        BadInput: naming the value that is none.
    """
    return _values(text, "tau", float, lambda t: 0 < t <= 1, "numbers above 0, up to 1")


def read_seeds(text: str) -> list[int]:
    """Read seeds, such as `1,2,3`.

    Raises:
        BadInput: naming the value that is none.
    """
    return _values(text, "seeds", int, lambda n: 0 <= n <= _MAX_SEED, "whole numbers from 0")


def read_methods(text: str) -> list[str]:
    """Read methods, and put those that a group stands for in its place.

    Raises:
        BadRecipe: one that is not known.
        BadInput: none at all.
    """
    from models.methods.catalogue import method, names

    specs: list[str] = []
    for part in _parts(text, "methods"):
        specs += names(part) if part in _GROUPS_OF_METHODS else [part]
    for spec in specs:
        method(spec)
    return list(dict.fromkeys(specs))


def read_sources(
    paths: Sequence[Path],
    images: Sequence[str],
    groups: Sequence[str],
    prompts: Sequence[str],
) -> list[SourceRef]:
    """Put together what belongs to each data set.

    Raises:
        BadInput: two sets of one name, or an option that does not say which of several it is for.
        BadDataset: a file of prompt names that cannot be read.
    """
    from models.bench.prompt_names import read_prompt_names

    bare = [SourceRef(path=path.absolute()) for path in paths]
    names = [ref.name for ref in bare]
    _check_distinct(names)
    folders = _by_set(images, names, "images")
    members = _by_set(groups, names, "groups")
    spoken = _by_set(prompts, names, "prompts")
    return [
        SourceRef(
            path=ref.path,
            images=folders.get(ref.name),
            groups=members.get(ref.name),
            prompt_names=read_prompt_names(spoken[ref.name]) if ref.name in spoken else {},
        )
        for ref in bare
    ]


def check_protocol(protocol: Protocol, names: Sequence[str]) -> None:
    """Refuse one data set where a protocol goes from one to others.

    Raises:
        BadInput: there are too few.
    """
    if protocol in ACROSS and len(names) < 2:
        raise BadInput(
            f"--protocol {protocol} goes from one data set to others, and there is {names[0]!r}"
            " alone.",
            fix="Name the set to learn on first, and then those to test on.",
            field="protocol",
        )


def _values(
    text: str,
    option: str,
    kind: Callable[[str], Value],
    allowed: Callable[[Value], bool],
    what: str,
) -> list[Value]:
    values: list[Value] = []
    for part in _parts(text, option):
        try:
            value = kind(part)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            raise BadInput(
                f"--{option} has the value {part!r}; {what} are expected.",
                fix=f"Write them with commas between, such as --{option} {_EXAMPLES[option]}.",
                field=option,
            )
        values.append(value)
    return list(dict.fromkeys(values))


_EXAMPLES = {
    "shots": "1,2,4,8,16",
    "tau": "1,0.25,0.06",
    "seeds": "1,2,3",
    "methods": "zero-shot,coop,coop+lc+mi",
}


def _parts(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise BadInput(
            f"--{option} is {text!r}, which names nothing.",
            fix=f"Write for example --{option} {_EXAMPLES[option]}.",
            field=option,
        )
    return parts


def _check_distinct(names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise BadInput(
                f"Two data sets are named {name!r}.",
                fix="Rename one of the folders or files: results are told apart by their names.",
                field="folder",
            )


def _by_set(values: Sequence[str], names: Sequence[str], option: str) -> dict[str, Path]:
    """Return paths by the sets that they are given for: `NAME=PATH`, or a path alone."""
    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or name not in names:
            if len(names) > 1 or len(values) > 1:
                raise BadInput(
                    f"--{option} {value} does not say which data set it is for.",
                    fix=f"Write --{option} NAME=PATH with one of: {', '.join(names)}.",
                    field=option,
                )
            name, path = names[0], value
        if name in found:
            raise BadInput(
                f"--{option} is given twice for {name!r}.",
                fix="Give it once for each data set.",
                field=option,
            )
        found[name] = Path(path).absolute()
    return found
