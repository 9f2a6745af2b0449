"""Images and uploads as JSON."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.tables import Split
from app.images.check import Verdict
from app.images.service import ImageView
from app.images.upload import FileResult, Outcome
from models.names import printable

_IMAGE = "01a20b4a-1f30-7a52-b1f5-6f0d2d5a9c11"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class ImageOut(BaseModel):
    """An image."""

    id: UUID = Field(examples=[_IMAGE])
    project: UUID
    label: str = Field(description="The name of its class.", examples=["scratch"])
    class_id: UUID
    split: Split = Field(description="`holdout` images never train.", examples=["train"])
    group: str = Field(
        description="Images of one part share it; an image of no group has its sha256.",
        examples=["part-0042"],
    )
    sha256: str = Field(examples=[_SHA256])
    file: str = Field(description="What the sender called it.", examples=["scratch/0001.png"])
    format: str = Field(examples=["PNG"])
    width: int = Field(examples=[1024])
    height: int = Field(examples=[768])
    bytes: int = Field(examples=[734003])
    created_at: datetime

    @classmethod
    def of(cls, found: ImageView) -> Self:
        """Return the image as JSON shows it."""
        row = found.row
        return cls(
            id=row.id,
            project=row.project_id,
            label=found.label.name,
            class_id=row.class_id,
            split=row.split,
            group=row.group,
            sha256=row.sha256,
            file=row.file_name,
            format=row.format,
            width=row.width,
            height=row.height,
            bytes=row.size_bytes,
            created_at=row.created_at,
        )


class ImageChange(BaseModel):
    """What to change of an image."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "dent"}]})

    label: str = Field(max_length=200, description="The name of another class of the project.")


class FileOut(BaseModel):
    """The verdict on one file of an upload."""

    file: str = Field(examples=["scratch/0001.png"])
    verdict: Verdict = Field(
        description="`duplicate`: the project, or this upload, has these bytes under this label."
    )
    label: str = Field(examples=["scratch"])
    image: UUID | None = Field(description="Null where rejected.", examples=[_IMAGE])
    sha256: str | None = Field(examples=[_SHA256])
    detail: str | None = Field(
        None,
        description="Why it was rejected, or what of a duplicate stays as it is.",
        examples=[None],
    )
    fix: str | None = Field(None, description="What to do about it.", examples=[None])
    warnings: list[str] = Field(
        [],
        description="What may be wrong with an accepted file: too dark or bright, less sharp than"
        " the others of its class, or a copy of another. `GET …/findings` looks closer.",
        examples=[[]],
    )

    @classmethod
    def of(cls, result: FileResult) -> Self:
        """Return the verdict as JSON shows it."""
        entry = result.checked
        return cls(
            file=printable(entry.file.name),
            verdict=entry.verdict,
            label=result.label,
            image=result.image_id,
            sha256=entry.sha256 or None,
            detail=entry.problem.problem if entry.problem else entry.kept,
            fix=entry.problem.fix if entry.problem else None,
            warnings=entry.warnings if entry.verdict == "accepted" else [],
        )


class UploadOut(BaseModel):
    """What became of an upload: at least one file could be used."""

    accepted: int = Field(examples=[1])
    duplicates: int = Field(examples=[0])
    rejected: int = Field(examples=[0])
    classes_created: list[str] = Field(examples=[[]])
    results: list[FileOut] = Field(description="In the order of the upload.")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Return the outcome as JSON shows it."""
        results = [FileOut.of(result) for result in outcome.results]
        verdicts = [result.verdict for result in results]
        return cls(
            accepted=verdicts.count("accepted"),
            duplicates=verdicts.count("duplicate"),
            rejected=verdicts.count("rejected"),
            classes_created=outcome.classes_created,
            results=results,
        )


_BINARY = {"type": "string", "format": "binary"}
_SPLIT = {"type": "string", "enum": ["train", "holdout"], "default": "train"}

# What the upload route takes, for OpenAPI: it reads its body itself, after the key was checked.
UPLOAD_BODY: dict[str, Any] = {
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
                            "description": "Photographs of one class.",
                        },
                        "label": {"type": "string", "description": "The class of `files`."},
                        "archive": _BINARY
                        | {
                            "description": "Instead of `files`: a zip, tar or tar.gz with a folder"
                            " per class. Missing classes are made; a folder `train` or `holdout`"
                            " above says the split."
                        },
                        "split": _SPLIT,
                        "group": {
                            "type": "string",
                            "description": "The part that all files show.",
                        },
                        "groups": {
                            "type": "string",
                            "description": "JSON: the group of each file, by its name.",
                        },
                        "ok": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Classes to be made with the role `ok`.",
                        },
                    },
                    "additionalProperties": False,
                    "oneOf": [
                        {"required": ["files", "label"], "properties": {"archive": False}},
                        {"required": ["archive"], "properties": {"files": False}},
                    ],
                },
                "examples": {
                    "files": {
                        "summary": "Photographs of one class",
                        "value": {"files": ["0001.png"], "label": "scratch", "split": "train"},
                    },
                    "archive": {
                        "summary": "A folder per class",
                        "value": {"archive": "parts.zip", "ok": ["flawless"]},
                    },
                },
                "encoding": {"ok": {"style": "form", "explode": True}},
            },
            **{
                kind: {"schema": _BINARY, "example": "(the bytes of the archive)"}
                for kind in ("application/zip", "application/x-tar", "application/gzip")
            },
        },
    }
}
