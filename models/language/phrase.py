"""Something to be said in any language: which text, and the values that it is filled with."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Phrase(BaseModel):
    """A text by its key, see `models.language.Language.word`.

    Attributes:
        key: of the text.
        values: of its placeholders: names and numbers as they are; a list of names; a phrase, or a
            list of them, which is worded in the same language.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    values: "dict[str, int | float | str | Phrase | list[str] | list[Phrase]]" = {}


def phrase(
    key: str, **values: "int | float | str | Phrase | Sequence[str] | Sequence[Phrase]"
) -> Phrase:
    """Return the phrase of a key and its values."""
    return Phrase.model_validate({"key": key, "values": values})
