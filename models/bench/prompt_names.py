"""The English names of classes, from a small YAML: `class: what the text encoder reads`."""

from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from models.errors import BadDataset

_NAMES = TypeAdapter(dict[str, str])


def read_prompt_names(path: Path) -> dict[str, str]:
    """Read one name per class; nothing in the file is run.

    Raises:
        BadDataset: it cannot be read, or is no list of texts by texts, or names a class twice.
    """
    try:
        # A class named 3 or no is a text here, not a number or a truth.
        loaded = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Texts)  # noqa: S506
        return _NAMES.validate_python(loaded, strict=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        why = str(error).splitlines()
        raise BadDataset(
            f"The prompt names in {path} cannot be read: {' '.join(why)}.",
            fix="Write a line per class, such as `pit: a small pit in steel`.",
            field="prompts",
        ) from error


class _Texts(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """Reads texts, lists and tables alone, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, object]:
        """Refuse a key that stands twice, of which YAML would keep the last."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.YAMLError(f"{key!r} stands twice")
        return super().construct_mapping(node, deep)
