"""What is kept of a tuning for its report, beside the artifact: its title and its pictures.

The page itself is not kept: it is rendered when it is asked for, in the language asked for.
"""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models.artifact import Artifact
from models.errors import DamagedArtifact
from models.report.data import Mistake, ReportData
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy


class KeptReport(BaseModel):
    """What a report needs that no artifact holds.

    Attributes:
        form: of the file.
        title: what the page is called.
        mistakes: with their pictures.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    form: Literal[1] = 1
    title: str | None = None
    mistakes: list[Mistake] = []

    def to_bytes(self) -> bytes:
        """Return it as JSON, pictures in base64."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "KeptReport":
        """Read what `to_bytes` wrote.

        Raises:
            DamagedArtifact: not such a file, or not as it was written.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DamagedArtifact(
                "What was kept for the report cannot be read.",
                fix="Take it from a backup, or tune again.",
            ) from error

    def of(self, artifact: Artifact, policy: DecisionPolicy = DEFAULT_POLICY) -> ReportData:
        """Return the report of the artifact, with what the policy says of costs."""
        data = ReportData.from_artifact(artifact, title=self.title, mistakes=self.mistakes)
        return replace(data, policy=policy)


def is_page(data: bytes) -> bool:
    """Say whether it is a whole page, in English, as was kept before pages were rendered anew."""
    return data.lstrip()[:1] == b"<"
