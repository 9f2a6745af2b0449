"""How much a tuning does at once where the device has too little memory for the usual."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Chunks(BaseModel):
    """Sizes of a tuning's pieces of work; None is the usual size.

    Sums are rounded by how they are split, so that smaller pieces give another artifact: one size
    is kept from a tuning's beginning to its end, in its checkpoints, and the artifact names it.

    Attributes:
        texts: prompts that the text tower runs at once, see `models.text_encoder.CHUNK`.
        images: images that are encoded at once, see `models.backbone.IMAGE_BATCH`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: Annotated[int, Field(ge=1)] | None = None
    images: Annotated[int, Field(ge=1)] | None = None

    def named(self) -> list[str]:
        """Return what is not the usual, for people."""
        named = {"classes": self.texts, "images": self.images}
        return [f"{size} {what} at a time" for what, size in named.items() if size is not None]


def smaller(size: int) -> int | None:
    """Return the greatest power of two below `size`; None where that is 1 already."""
    return None if size <= 1 else 1 << (size - 1).bit_length() - 1
