"""The artifact: an immutable tuned model of a few kilobytes, which says what it is and proves it.

A safetensors file (never pickle) with a JSON header. Its digest covers what it answers with and
what it came from: tensors, recipe, seed, view, class list, snapshot and backbone; no times or
paths. Its checksum covers the rest.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError

from models.classes import ClassSpec
from models.collapse.measures import CollapseMetrics
from models.errors import ArtifactMismatch, DamagedArtifact
from models.evaluation.results import Evaluation, WrongImage
from models.files import read_metadata, write_atomic
from models.findings.finding import FindingSummary
from models.imaging import View
from models.learning_curve import LearningCurve
from models.recipe import Recipe
from models.search.result import SearchResult
from models.trust.evidence import reduced_rows
from models.trust.judge import Judge
from models.trust.metrics import TrustMetrics
from models.trust.quantised import Quantised
from models.trust.rule import DecisionRule

# Of the file: 2 carries a decision rule and what it needs, which 1 knows nothing of.
FORMAT_VERSIONS: Final = ("1", "2")
_PER_CLASS = ("class_embeddings", "class_means", "text_features", "zero_shot_features")
_TENSORS = (*_PER_CLASS, "ctx")
_OF_RULE = ("fold_embeddings", "fold_scales", "photographs")


class TuningMetrics(BaseModel):
    """What is known of a tuning's result.

    Attributes:
        tuned: evaluation of the tuned model; its basis says on which images.
        zero_shot: the backbone without tuning, on the same images.
        collapse_before: of the hand-written prompts, on the training images.
        collapse_after: of the tuned prompts, on the same.
        history: the records of the epochs, see `models.loss.EpochRecord`.
        seconds: wall time of each phase.
        linear_probe: logistic regression on the same image features, every class with the same
            weight, on the same images; `None` where there are too many for it, or in artifacts
            that are older than it.
        wrong: the images that were decided wrong with the highest probability, that one first;
            `None` in artifacts that are older than it.
        trust: calibration and prediction sets; None where there is no decision rule.
        findings: what the data doctor says of the images, see `models.findings`; None where it did
            not look.
        learning_curve: what more images would bring; older artifacts have none.
        search: how the recipe was found, where a search found it.
    """

    model_config = ConfigDict(frozen=True)

    tuned: Evaluation
    zero_shot: Evaluation
    collapse_before: CollapseMetrics
    collapse_after: CollapseMetrics
    history: list[dict[str, float]]
    seconds: dict[str, float]
    linear_probe: Evaluation | None = None
    wrong: list[WrongImage] | None = None
    trust: TrustMetrics | None = None
    findings: list[FindingSummary] | None = None
    learning_curve: LearningCurve | None = None
    search: SearchResult | None = None


class ArtifactHeader(BaseModel):
    """What an artifact is.

    Attributes:
        format_version: of the file; another one is refused.
        backbone: the form by which the backbone was loaded.
        backbone_digest: the one backbone that the tensors belong to.
        classes: in the order of the tensors' rows.
        recipe: the hyperparameters.
        seed: of the tuning.
        view: how images are looked at.
        snapshot: digest of the labelled images.
        n_train: how many images each class was tuned on.
        logit_scale: the factor in front of the cosines.
        rule: how decisions are made; without one the most probable class decides.
        metrics: what is known of the result; not part of the digest.
        created: when, in UTC; not part of the digest.
        shotline: the version that made it; not part of the digest.
        made_on: the processor, arithmetic and PyTorch that made it, which round in their own way,
            as do smaller pieces of work where memory was short; not part of the digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1, 2] = 1
    backbone: str
    backbone_digest: str
    classes: list[ClassSpec]
    recipe: Recipe
    seed: int
    view: View
    snapshot: str
    n_train: list[int]
    logit_scale: float
    rule: DecisionRule | None = None
    metrics: TuningMetrics
    created: datetime
    shotline: str
    made_on: str


class Artifact:
    """A tuned model: its header and its tensors.

    Args:
        header: what it is.
        tensors: `class_embeddings`, `class_means`, `text_features` and `zero_shot_features`, each
            `(n_classes, embed_dim)`, and `ctx`; with a rule also `fold_embeddings`, int8 of
            `(folds * n_classes, embed_dim)`, their `fold_scales`, and `photographs`, the scaled
            statistics of the training photographs, `(n, 4)`.
    """

    def __init__(self, header: ArtifactHeader, tensors: Mapping[str, np.ndarray]) -> None:
        self.header = header
        names = _TENSORS if header.rule is None else (*_TENSORS, *_OF_RULE)
        self.tensors = {name: np.ascontiguousarray(tensors[name]) for name in names}
        self.digest = _digest(header, self.tensors)

    @property
    def class_embeddings(self) -> Float[np.ndarray, "n_classes embed_dim"]:
        """What image features are multiplied with at prediction time; L2-normalised."""
        return self.tensors["class_embeddings"]

    @property
    def fold_embeddings(self) -> Quantised | None:
        """The class embeddings of the folds' models, one fold after the other, where there are."""
        if self.header.rule is None:
            return None
        return Quantised(self.tensors["fold_embeddings"], self.tensors["fold_scales"])

    def judge(self) -> Judge | None:
        """Return the decision rule, ready to use; None where there is none."""
        rule = self.header.rule
        return None if rule is None else Judge.of(rule, self.tensors["photographs"])

    def reduced(self) -> Quantised | None:
        """Return what else an image is compared with, see `models.trust.evidence`."""
        folds = self.fold_embeddings
        return None if folds is None else reduced_rows(folds, self.tensors["class_means"])

    def with_metrics(self, **changed: Any) -> "Artifact":
        """Return the artifact with some of `TuningMetrics` replaced; its digest stays."""
        metrics = self.header.metrics.model_copy(update=changed)
        return Artifact(self.header.model_copy(update={"metrics": metrics}), self.tensors)

    def to_bytes(self) -> bytes:
        """Return the artifact as a safetensors file."""
        header = self.header.model_dump_json()
        metadata = {
            "format_version": str(self.header.format_version),
            "header": header,
            "checksum": hashlib.sha256(header.encode()).hexdigest(),
            "digest": self.digest,
        }
        return safetensors.numpy.save(self.tensors, metadata=metadata)

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "The artifact") -> "Artifact":
        """Read what `to_bytes` wrote.

        Args:
            data: the whole file.
            name: what error messages call it.

        Raises:
            DamagedArtifact: not an artifact, or not as it was written.
            ArtifactMismatch: written in another version of the format.
        """
        metadata = read_metadata(data)
        if "format_version" not in metadata:
            raise DamagedArtifact(
                f"{name} is no tuned model, or is damaged: its header cannot be read.",
                fix="Name a file that `shotline tune` wrote; if it is one, take it from a backup.",
            )
        if metadata["format_version"] not in FORMAT_VERSIONS:
            raise ArtifactMismatch(
                f"{name} has format version {metadata['format_version']};"
                f" this Shotline reads {' and '.join(FORMAT_VERSIONS)}.",
                fix="Update Shotline, or tune again with this version.",
            )
        header = metadata.get("header", "")
        if hashlib.sha256(header.encode()).hexdigest() != metadata.get("checksum"):
            raise _damaged(name, "its header is not what its checksum says")
        artifact = cls(*_read(header, data, name))
        if artifact.digest != metadata.get("digest"):
            raise _damaged(name, f"its content has the digest {artifact.digest[:19]}…")
        return artifact


def read_artifact(path: Path) -> Artifact:
    """Read an artifact file.

    Raises:
        DamagedArtifact: missing, not an artifact, or not as it was written.
        ArtifactMismatch: written in another version of the format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedArtifact(
            f"The artifact {path} cannot be read: {error.strerror}.", fix="Check the path."
        ) from error
    return Artifact.from_bytes(data, name=f"The artifact {path}")


def write_artifact(artifact: Artifact, path: Path) -> None:
    """Write an artifact file, whole or not at all.

    Raises:
        StorageFull: no space is left.
        StorageUnusable: the folder cannot be written to.
    """
    write_atomic(path, artifact.to_bytes())


def _read(header_json: str, data: bytes, name: str) -> tuple[ArtifactHeader, dict[str, np.ndarray]]:
    """Return header and tensors, once they fit each other."""
    try:
        header = ArtifactHeader.model_validate_json(header_json)
        tensors = safetensors.numpy.load(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(name, f"its header's {place}: {first['msg']}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(name, "its tensors cannot be read") from error
    wanted = _TENSORS if header.rule is None else (*_TENSORS, *_OF_RULE)
    missing = [tensor for tensor in wanted if tensor not in tensors]
    if missing:
        raise _damaged(name, f"it lacks {', '.join(missing)}")
    _check_shapes(header, tensors, name)
    return header, tensors


def _check_shapes(header: ArtifactHeader, tensors: Mapping[str, np.ndarray], name: str) -> None:
    width = tensors["class_embeddings"].shape[-1:]
    for key in _PER_CLASS:
        tensor = tensors[key]
        if tensor.ndim != 2 or tensor.shape[-1:] != width or tensor.dtype.kind != "f":
            raise _damaged(name, f"{key} is {tensor.dtype} of the shape {tensor.shape}")
    rows = {key: len(tensors[key]) for key in _PER_CLASS} | {"n_train": len(header.n_train)}
    for key, count in rows.items():
        if count != len(header.classes):
            raise _damaged(name, f"{len(header.classes)} classes have {count} rows of {key}")
    if header.rule is not None:
        _check_rule(header.rule, len(header.classes), tensors, name)


def _check_rule(
    rule: DecisionRule, n_classes: int, tensors: Mapping[str, np.ndarray], name: str
) -> None:
    rows, scales, photographs = (tensors[key] for key in _OF_RULE)
    width = tensors["class_embeddings"].shape[1]
    if rows.shape != (rule.folds * n_classes, width) or rows.dtype != np.int8:
        raise _damaged(name, f"fold_embeddings is {rows.dtype} of the shape {rows.shape}")
    if scales.shape != rows.shape[:1] or scales.dtype != np.float32:
        raise _damaged(name, f"fold_scales is {scales.dtype} of the shape {scales.shape}")
    if photographs.ndim != 2 or photographs.shape[1] != 4 or photographs.dtype.kind != "f":
        raise _damaged(name, f"photographs is {photographs.dtype} of the shape {photographs.shape}")
    if len(rule.scores) != n_classes or any(len(folds) != rule.folds for folds in rule.scores):
        raise _damaged(name, "its rule is of other classes or folds")


def _digest(header: ArtifactHeader, tensors: Mapping[str, np.ndarray]) -> str:
    left_out = {"backbone", "metrics", "created", "shotline", "made_on"}
    if header.rule is None:
        left_out.add("rule")  # the digests of artifacts from before there were rules stay theirs
    covered: dict[str, Any] = header.model_dump(mode="json", exclude=left_out)
    hasher = hashlib.sha256(json.dumps(covered, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        # By torch's name of the type, under which the first artifacts were hashed.
        hasher.update(f"{name}{tensor.shape}torch.{tensor.dtype}".encode())
        hasher.update(tensor.tobytes())
    return "sha256:" + hasher.hexdigest()


def _damaged(name: str, reason: str) -> DamagedArtifact:
    return DamagedArtifact(
        f"{name} is damaged: {reason}.",
        fix="Take it from a backup, or tune again; do not use it for decisions.",
    )
