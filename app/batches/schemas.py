"""Batches as JSON."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.batches.repository import BatchRow
from app.core.tables import JobState
from app.predictions.schemas import ModelRef
from app.tunings.schemas import FailureOut

_BATCH = "01a20b70-5d21-7f3a-8c44-6e1f2a9b3c07"


class BatchProgressOut(BaseModel):
    """How far a batch is."""

    done: int = Field(
        description="Images decided on, or with a problem in their place.", examples=[1280]
    )
    total: int = Field(examples=[5000])
    failed: int = Field(description="Of those done, the ones with a problem.", examples=[3])
    images_per_second: float | None = Field(
        description="Of the worker that has it, or had it last.", examples=[41.5]
    )
    seconds_left: float | None = Field(
        description="From that speed; null unless it is running.", examples=[89.6]
    )


class BatchOut(BaseModel):
    """A batch of images that are decided on in the background."""

    id: UUID = Field(examples=[_BATCH])
    project: UUID
    state: JobState = Field(examples=["running"])
    cancel_requested: bool = Field(examples=[False])
    attempt: int = Field(
        description="How often a worker took it; a worker also gives it back for a tuning.",
        examples=[1],
    )
    model: ModelRef = Field(description="Frozen when the batch was asked for.")
    top_k: int | None = Field(examples=[None])
    progress: BatchProgressOut
    failure: FailureOut | None = None
    requested_by: UUID | None = Field(None, description="The API key that asked for it.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, row: BatchRow) -> Self:
        """Return `row` as JSON shows it."""
        batch, version = row
        progress = BatchProgressOut.model_validate(batch.progress)
        if batch.state != "running":
            progress.seconds_left = None
        return cls(
            id=batch.id,
            project=batch.project_id,
            state=batch.state,
            cancel_requested=batch.cancel_requested,
            attempt=batch.attempt,
            model=ModelRef(id=version.id, version=version.number, digest=version.digest),
            top_k=batch.top_k,
            progress=progress,
            failure=None if batch.failure is None else FailureOut(**batch.failure),
            requested_by=batch.requested_by,
            created_at=batch.created_at,
            started_at=batch.started_at,
            finished_at=batch.finished_at,
        )


_BINARY = {"type": "string", "format": "binary"}

# What the route takes, for OpenAPI: it reads its body itself, after the key was checked.
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": _BINARY,
                            "minItems": 1,
                            "description": "Photographs.",
                        },
                        "archive": _BINARY
                        | {"description": "Instead of `files`: a zip, tar or tar.gz of them."},
                    },
                    "oneOf": [{"required": ["files"]}, {"required": ["archive"]}],
                },
                "examples": {
                    "files": {"summary": "Photographs", "value": {"files": ["0001.png"]}},
                    "archive": {"summary": "An archive", "value": {"archive": "shift.zip"}},
                },
            },
            **{
                kind: {"schema": _BINARY, "example": "(the bytes of the archive)"}
                for kind in ("application/zip", "application/x-tar", "application/gzip")
            },
        },
    }
}

_LINE = (
    '{"index":0,"name":"0001.png","decision":"ng","reason":"certain","label":"scratch","probability":0.94,'
    '"probabilities":[{"label":"scratch","probability":0.94},{"label":"good","probability":0.06}],'
    '"prediction_set":["scratch"],"model":{"id":"01a20b55-77aa-7c01-8f1e-2d9a6b3c4e5f",'
    '"version":7,"digest":"sha256:2c26…"}}\n'
)
_TABLE = (
    "index,name,decision,reason,label,probability,probability_good,probability_scratch,version,"
    "model_digest,error\r\n0,0001.png,ng,certain,scratch,0.940000,0.060000,0.940000,7,sha256:2c26…,\r\n"
)

# What the results may be, for OpenAPI.
RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The results, in the order of the images",
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": _TABLE},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINE},
            "application/vnd.apache.parquet": {
                "schema": _BINARY,
                "example": "(the bytes of a Parquet file)",
            },
        },
    }
}
