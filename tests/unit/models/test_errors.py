"""The error tree, and that every refusal names the value at fault and the fix."""

import errno
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models.errors as tree
from models.artifact import Artifact, read_artifact
from models.backbone_source import BackboneSource, load_backbone
from models.checkpoint import Checkpoint
from models.classes import check_classes, class_spec
from models.collapse.etf import fit_etf
from models.dataset import check_images, read_folder, read_groups
from models.errors import (
    Cancelled,
    ShotlineError,
    StorageFull,
    StorageUnusable,
    file_errors,
    storage_errors,
)
from models.imaging import View, decode
from models.pixels import to_pixels
from models.recipe import Recipe
from tests.unit.models.conftest import CLASSES, draw_images, encode, labelled, noise_image

NOWHERE = Path("/nowhere/at all")


def read_view_of_another_decoder() -> None:
    to_pixels(encode(noise_image(0, (9, 9, 9))), View(decoder="pillow/99"), 8)


# What was given, and the value in it that the message must show.
REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "empty name": (lambda: class_spec(" _ "), "'_'"),
    "long name": (lambda: class_spec("n" * 101), "101"),
    "control character": (lambda: class_spec("a\x07b"), r"'a\x07b'"),
    "one class": (lambda: check_classes([class_spec("good")]), "'good'"),
    "same names": (
        lambda: check_classes([class_spec("Scratch_A"), class_spec("scratch a")]),
        "'Scratch_A' and 'scratch a'",
    ),
    "one image": (lambda: check_images(CLASSES, draw_images(2, 2, 1)), "'stain' has 1 "),
    "two labels": (
        lambda: check_images(CLASSES, [labelled(0, b"x", name="a"), labelled(1, b"x", name="b")]),
        "'good' (a) and 'scratch' (b)",
    ),
    "no folder": (lambda: read_folder(NOWHERE), str(NOWHERE)),
    "no group file": (lambda: read_groups(NOWHERE), str(NOWHERE)),
    "recipe": (lambda: Recipe.read({"lr": math.inf}), "lr is inf"),
    "warm-up": (lambda: Recipe.read({"steps": 3, "warmup_steps": 7}), "warmup_steps is 7"),
    "too many classes": (lambda: fit_etf(torch.ones(5, 2)), "5 classes exists in 2"),
    "region of interest": (lambda: View(roi=(0.5, 0, 0.4, 1)), "(0.5, 0.0, 0.4, 1.0)"),
    "decoder": (read_view_of_another_decoder, "'pillow/99'"),
    "no bytes": (lambda: decode(b""), "0 bytes"),
    "no image": (lambda: decode(b"%PDF-1.7"), "%PDF-1.7"),
    "backbone form": (lambda: BackboneSource.parse("a/b/c"), "'a/b/c'"),
    "architecture": (lambda: BackboneSource.parse("ViT-Z/x"), "'ViT-Z'"),
    "tag": (lambda: BackboneSource.parse("ViT-B-32/x"), "'x' of ViT-B-32"),
    "backbone folder": (lambda: load_backbone(f"local-dir:{NOWHERE}"), str(NOWHERE)),
    "checkpoint file": (lambda: load_backbone(f"ViT-B-32@{NOWHERE}"), str(NOWHERE)),
    "artifact": (lambda: Artifact.from_bytes(b"12345678"), "The artifact is no tuned model"),
    "no artifact": (lambda: read_artifact(NOWHERE), str(NOWHERE)),
    "checkpoint": (lambda: Checkpoint.from_bytes(b"12345678"), "8 bytes"),
}


@pytest.mark.parametrize(("give", "value"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_the_value_and_the_fix(give: Callable[[], object], value: str) -> None:
    with pytest.raises(ShotlineError) as caught:
        give()
    error = caught.value
    assert value in error.problem
    assert re.fullmatch(r"[A-Z].*[.]", error.fix, re.DOTALL)
    assert error.problem.endswith(".")
    assert str(error) == f"{error.problem} {error.fix}"


def test_the_tree_is_the_one_drawn() -> None:
    drawn = re.findall(r"^    ([ │├└─]*)(\w+)", str(tree.__doc__), re.MULTILINE)
    parents: dict[int, type] = {0: Exception}
    for indent, name in drawn:
        depth = len(indent) // 4 + 1
        kind = getattr(tree, name)
        assert kind.__bases__ == (parents[depth - 1],)
        parents[depth] = kind

    kinds = [value for value in vars(tree).values() if isinstance(value, type)]
    errors = {kind.__name__ for kind in kinds if issubclass(kind, ShotlineError)}
    assert errors == {name for _, name in drawn}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_the_tree(tmp_path: Path, code: int) -> None:
    path = tmp_path / "model.safetensors"

    with pytest.raises(StorageFull, match=re.escape(str(path))) as caught, storage_errors(path):
        raise OSError(code, "no room")
    assert str(tmp_path) in caught.value.fix


def test_other_errors_of_the_system_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), storage_errors(tmp_path):
        raise PermissionError(errno.EACCES, "not yours")


def test_whatever_the_system_says_of_a_file_is_an_error_of_the_tree(tmp_path: Path) -> None:
    problem = f"{tmp_path} cannot be read: Is a directory"
    with pytest.raises(StorageUnusable, match=problem), file_errors(tmp_path, "read"):
        tmp_path.read_bytes()
    with pytest.raises(StorageFull), file_errors(tmp_path, "written"):
        raise OSError(errno.ENOSPC, "no room")


def test_cancelled_says_how_to_go_on() -> None:
    assert str(Cancelled()) == "The tuning was cancelled. Start it again when you want its result."
    assert Cancelled("Stopped.").problem == "Stopped."
