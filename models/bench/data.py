"""A data set as the bench sees it, and how it is named to those who read it again."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from models.dataset import Dataset, snapshot_digest


class SourceRef(BaseModel):
    """Where a data set is read from.

    Attributes:
        path: a folder, or a file of one of the forms of `models.bench.sources`.
        images: the folder that the paths in a file begin at; found beside the file where `None`.
        groups: a group file.
        prompt_names: the English name of a class, by the class's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    images: Path | None = None
    groups: Path | None = None
    prompt_names: dict[str, str] = {}

    @property
    def name(self) -> str:
        """What results call it: the path's last part, without its ending."""
        path = self.path.absolute()
        return path.name if path.is_dir() else path.stem.removeprefix("split_zhou_")


@dataclass(frozen=True)
class BenchSet:
    """Labelled images, and whether they came with a split.

    Attributes:
        name: what results call it.
        dataset: the images; where a split was given, `holdout` are those to be tested on, and
            images for validation are left out.
        split_given: whether it was.
    """

    name: str
    dataset: Dataset
    split_given: bool = False
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = snapshot_digest(self.dataset.classes, self.dataset.images)
        object.__setattr__(self, "digest", digest)

    @property
    def labels(self) -> list[int]:
        """The class of each image."""
        return [image.label for image in self.dataset.images]

    @property
    def groups(self) -> list[str]:
        """The part that each image shows."""
        return [image.group for image in self.dataset.images]

    @property
    def prompt_names(self) -> list[str]:
        """The English name of each class."""
        return [spec.prompt_name for spec in self.dataset.classes]
