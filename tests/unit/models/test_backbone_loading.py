"""Where backbones come from: five forms, offline, and what is refused."""

import json
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch

from models.backbone import Backbone
from models.backbone_files import STARTER_FOLDER
from models.backbone_source import BackboneSource, load_backbone
from models.errors import BackboneUnavailable
from tests.unit.models.conftest import PIXELS, TEXT, VISION, build_clip

CONFIG = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let every attempt to reach another machine fail the test."""
    attempts: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        attempts.append(args)
        raise AssertionError(f"a connection was tried: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone in open_clip's local-dir form."""
    path = tmp_path / "tiny"
    path.mkdir()
    config = {"model_cfg": CONFIG, "preprocess_cfg": PIXELS}
    (path / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    safetensors.torch.save_file(build_clip().state_dict(), path / WEIGHTS)
    return path


@pytest.fixture
def architecture(tmp_path: Path) -> Iterator[str]:
    """The name of a tiny architecture that open_clip knows."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "shotline-tiny.json").write_text(json.dumps(CONFIG), "utf-8")
    open_clip.add_model_config(configs)
    yield "shotline-tiny"
    (configs / "shotline-tiny.json").unlink()
    open_clip.factory._MODEL_CONFIGS.pop("shotline-tiny")


def load(source: str, **options: Any) -> Backbone:
    return load_backbone(source, **({"device": "cpu"} | options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("starter", BackboneSource(f"local-dir:{STARTER_FOLDER}")),
        ("local-dir:/some/folder", BackboneSource("local-dir:/some/folder")),
        ("hf-hub:org/name", BackboneSource("hf-hub:org/name")),
        (
            "ViT-B-32/laion2b_s34b_b79k",
            BackboneSource("ViT-B-32/laion2b_s34b_b79k", "ViT-B-32", "laion2b_s34b_b79k"),
        ),
        (
            "ViT-B-32@/a b/c@d.pt",
            BackboneSource("ViT-B-32@/a b/c@d.pt", "ViT-B-32", checkpoint=Path("/a b/c@d.pt")),
        ),
    ],
)
def test_the_five_forms(text: str, expected: BackboneSource) -> None:
    assert BackboneSource.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is none of starter, local-dir:FOLDER"),
        ("ViT-B-32", "'ViT-B-32' is none of"),
        ("ViT-B-32/", "'ViT-B-32/' is none of"),
        ("a/b/c", "'a/b/c' is none of"),
        ("Starter", "'Starter' is none of"),
        ("ViT-B-33/openai", "no architecture 'ViT-B-33'"),
        ("ViT-B-33@file.pt", "no architecture 'ViT-B-33'"),
        ("ViT-B-32/openia", "no weights 'openia' of ViT-B-32"),
    ],
)
def test_other_forms_are_refused(text: str, problem: str) -> None:
    with pytest.raises(BackboneUnavailable, match=problem) as caught:
        BackboneSource.parse(text)
    assert caught.value.field == "backbone"


def test_the_tags_that_are_known_are_named() -> None:
    with pytest.raises(BackboneUnavailable) as caught:
        BackboneSource.parse("ViT-B-32/openia")
    assert "laion2b_s34b_b79k" in caught.value.fix


def test_a_local_folder_is_the_backbone_that_was_saved(folder: Path, backbone: Backbone) -> None:
    loaded = load(f"local-dir:{folder}")

    assert loaded.digest == backbone.digest
    assert loaded.source == f"local-dir:{folder}"
    assert torch.equal(loaded.encode_texts(["a cat"]), backbone.encode_texts(["a cat"]))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_file_is_the_backbone_that_was_saved(
    architecture: str, tmp_path: Path, suffix: str
) -> None:
    state, path = build_clip().state_dict(), tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        safetensors.torch.save_file(state, path)
    loaded, clip = load(f"{architecture}@{path}"), build_clip()

    assert loaded.pixels.mean == open_clip.OPENAI_DATASET_MEAN
    tokens = open_clip.SimpleTokenizer()(["a cat"])
    with torch.no_grad():
        expected = clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(loaded.encode_texts(["a cat"]), expected)


@pytest.mark.parametrize(
    "source",
    [
        "ViT-B-32/laion2b_s34b_b79k",
        "ViT-B-32/openai",
        "RN50/yfcc15m",
        "hf-hub:org/name",
        "hf-hub:no repository's name",
        "hf-hub:",
    ],
)
def test_what_is_not_on_this_machine_is_not_asked_for(
    source: str, no_network: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(BackboneUnavailable, match="not on this machine") as caught:
        load(source)
    assert repr(source) in caught.value.problem
    assert "ARCHITECTURE@FILE" in caught.value.fix
    assert "--online" in caught.value.fix
    assert no_network == []


def test_a_hubs_copy_on_this_machine_is_found(
    folder: Path,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: list[object],
) -> None:
    cache = tmp_path / "hub" / "models--org--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc", "utf-8")
    (cache / "snapshots").mkdir()
    folder.rename(cache / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache.parent))

    assert load("hf-hub:org/name").digest == backbone.digest
    assert no_network == []


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"hf_hub": "org/name/"}, [WEIGHTS, "open_clip_pytorch_model.bin"]),
        ({"hf_hub": "org/name/special.bin"}, ["special.bin"]),
        (
            {"hf_hub": "org/name/open_clip_pytorch_model.bin"},
            [WEIGHTS, "open_clip_pytorch_model.bin"],
        ),
    ],
)
def test_the_files_that_a_tag_may_be_in(
    architecture: str,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, str],
    names: list[str],
) -> None:
    asked: list[str] = []

    def look_up(repository: str, name: str) -> None:
        assert repository == "org/name"
        asked.append(name)

    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: config)
    monkeypatch.setattr("models.backbone_source.try_to_load_from_cache", look_up)
    with pytest.raises(BackboneUnavailable):
        load(f"{architecture}/tag")
    assert asked == names


def test_a_tags_file_on_this_machine_is_found(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"url": "https://models.example/tiny.pt", "mean": PIXELS["mean"]}
    path = tmp_path / ".cache" / "clip" / "tiny.pt"
    path.parent.mkdir(parents=True)
    torch.save(build_clip().state_dict(), path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: config)

    assert load(f"{architecture}/tag").pixels.mean == PIXELS["mean"]


@pytest.mark.parametrize("source", ["shotline-tiny/tag", "hf-hub:org/name"])
def test_the_hub_is_asked_where_that_is_allowed(
    source: str,
    architecture: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: list[object],
) -> None:
    config = {"url": "https://models.example/tiny.pt"}
    monkeypatch.setenv("HOME", str(tmp_path))
    for module in (open_clip, open_clip.factory):
        monkeypatch.setattr(module, "get_pretrained_cfg", lambda *_: config)

    with pytest.raises(BackboneUnavailable, match="not on this machine"):
        load(source)
    assert no_network == []
    with pytest.raises(BackboneUnavailable, match="a connection was tried"):
        load(source, offline=False)
    assert no_network


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackboneUnavailable, match=r"nowhere holds no open_clip_config\.json"):
        load(f"local-dir:{tmp_path / 'nowhere'}")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()

    with pytest.raises(BackboneUnavailable, match="could not be loaded"):
        load(f"local-dir:{folder}")


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"model_cfg": {"embed_dim": 16}}'])
def test_a_damaged_config(folder: Path, config: str) -> None:
    (folder / "open_clip_config.json").write_text(config, "utf-8")

    with pytest.raises(BackboneUnavailable, match="could not be loaded") as caught:
        load(f"local-dir:{folder}")
    assert "whole and readable" in caught.value.fix


def test_damaged_weights(folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()

    for damaged in (b"", weights[:1000], weights[:-1]):
        (folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(BackboneUnavailable, match="could not be loaded"):
            load(f"local-dir:{folder}")


def test_weights_of_another_architecture(folder: Path) -> None:
    state = build_clip().state_dict()
    state.pop("ln_final.weight")
    safetensors.torch.save_file(state, folder / WEIGHTS)

    with pytest.raises(BackboneUnavailable, match=r"ln_final\.weight"):
        load(f"local-dir:{folder}")


def test_a_checkpoint_file_that_is_missing(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneUnavailable, match=r"checkpoint file .*no\.pt does not exist"):
        load(f"{architecture}@{tmp_path / 'no.pt'}")


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self._command,)


def test_a_checkpoint_file_runs_nothing(architecture: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Command(f"touch {trace}")))

    with pytest.raises(BackboneUnavailable):
        load(f"{architecture}@{path}")
    assert not trace.exists()


@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name"])
def test_a_text_tower_that_open_clip_would_download_is_refused(
    folder: Path, key: str, no_network: list[object]
) -> None:
    config = {"model_cfg": CONFIG | {"text_cfg": TEXT | {key: "org/name"}}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")

    with pytest.raises(BackboneUnavailable, match="its tokenizer is not CLIP's own"):
        load(f"local-dir:{folder}")
    assert no_network == []


def test_an_architecture_that_open_clip_would_download_for_is_refused(
    tmp_path: Path, no_network: list[object]
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": build_clip().state_dict()}, path)

    with pytest.raises(BackboneUnavailable, match="its tokenizer is not CLIP's own"):
        load(f"roberta-ViT-B-32@{path}")
    assert no_network == []


def test_a_tokenizer_of_another_kind_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: str.split)

    with pytest.raises(BackboneUnavailable, match="its tokenizer is not CLIP's own"):
        load(f"local-dir:{folder}")


def test_a_tower_that_prompts_cannot_be_tuned_for_is_refused(folder: Path) -> None:
    config = {"model_cfg": CONFIG | {"text_cfg": TEXT | {"pool_type": "last"}}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")

    with pytest.raises(BackboneUnavailable, match="pools by 'last'"):
        load(f"local-dir:{folder}")
