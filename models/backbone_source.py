"""Where backbones come from: the forms of their names, and loading them through open_clip."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from torch import nn

from models.backbone import Backbone, Device, Precision
from models.backbone_files import CONFIG_NAME, LOCAL, STARTER, local_folder
from models.errors import BackboneUnavailable
from models.memory import keep_freed_memory


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone comes from.

    Five forms are read: ``starter``, ``local-dir:FOLDER`` (open_clip's own), ``hf-hub:ORG/NAME``,
    ``ARCHITECTURE/TAG`` and ``ARCHITECTURE@CHECKPOINT_FILE``.
    """

    text: str
    architecture: str | None = None
    tag: str | None = None
    checkpoint: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "BackboneSource":
        """Read one of the five forms.

        Raises:
            BackboneUnavailable: another form, or an architecture or tag that open_clip does not
            know.
        """
        folder = local_folder(text)
        if folder is not None:
            return cls(f"{LOCAL}{folder}")
        if text.startswith("hf-hub:"):
            return cls(text)
        match = re.fullmatch(r"(?P<name>[^/@]+)(?:/(?P<tag>[^/@]+)|@(?P<file>.+))", text)
        if match is None:
            raise BackboneUnavailable(
                f"The backbone {text!r} is none of starter, local-dir:FOLDER, hf-hub:ORG/NAME,"
                " ARCHITECTURE/TAG and ARCHITECTURE@CHECKPOINT_FILE.",
                fix="Write it in one of these forms, for example ViT-B-32/laion2b_s34b_b79k.",
                field="backbone",
            )
        name, tag, file = match["name"], match["tag"], match["file"]
        if name not in open_clip.list_models():
            raise BackboneUnavailable(
                f"open_clip knows no architecture {name!r}.",
                fix="Choose one of open_clip.list_models(), for example ViT-B-32.",
                field="backbone",
            )
        if tag is not None and not open_clip.get_pretrained_cfg(name, tag):
            known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise BackboneUnavailable(
                f"open_clip knows no weights {tag!r} of {name}.",
                fix=f"Choose one of: {known}.",
                field="backbone",
            )
        return cls(text, architecture=name, tag=tag, checkpoint=Path(file) if file else None)


def load_backbone(
    source: str = STARTER,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    offline: bool = True,
) -> Backbone:
    """Load a backbone through open_clip; from here on the process keeps the memory that it frees.

    Args:
        source: see `BackboneSource`; the starter that ships with Shotline by default.
        device: `auto` takes the GPU where there is one.
        precision: `auto` takes bf16 or fp16 on a GPU and fp32 on a CPU.
        offline: look on this machine only; nothing is asked of a model hub.

    Raises:
        BackboneUnavailable: unknown, not on this machine, damaged, or of a kind that prompts
            cannot be tuned for.
    """
    parsed = BackboneSource.parse(source)
    keep_freed_memory()
    try:
        clip, name = _create(parsed, offline=offline)
        tokenizer = open_clip.get_tokenizer(name)
    except BackboneUnavailable:
        raise
    except Exception as error:  # open_clip raises whatever its loaders do
        raise BackboneUnavailable(
            f"The backbone {source!r} could not be loaded: {error}.",
            fix="Check the name, and that its files are whole and readable.",
            field="backbone",
        ) from error
    if not isinstance(tokenizer, open_clip.SimpleTokenizer):
        raise _foreign_tokenizer(source)
    return Backbone(clip, tokenizer, source=source, device=device, precision=precision)


def _create(source: BackboneSource, *, offline: bool) -> tuple[nn.Module, str]:
    """Build the model; return it with the name by which open_clip finds its tokenizer."""
    if source.architecture is None:
        name = _snapshot(source.text) if offline else source.text
        folder = Path(name.removeprefix(LOCAL))
        if name.startswith(LOCAL) and not (folder / CONFIG_NAME).is_file():
            raise BackboneUnavailable(
                f"The folder {folder} holds no {CONFIG_NAME}.",
                fix="Name a folder in open_clip's local-dir form.",
                field="backbone",
            )
        _check_tokenizer(name, source.text)
        return open_clip.create_model(name, require_pretrained=True), name
    _check_tokenizer(source.architecture, source.text)
    tag_config = open_clip.get_pretrained_cfg(source.architecture, source.tag or "")
    weights = source.checkpoint or (_cached_weights(source, tag_config) if offline else source.tag)
    if source.checkpoint is not None and not source.checkpoint.is_file():
        raise BackboneUnavailable(
            f"The checkpoint file {source.checkpoint} does not exist.",
            fix="Check the path after the @.",
            field="backbone",
        )
    clip = open_clip.create_model(
        source.architecture,
        pretrained=str(weights),
        require_pretrained=True,
        force_quick_gelu=tag_config.get("quick_gelu", False),
        force_preprocess_cfg=tag_config,
    )
    return clip, source.architecture


def _check_tokenizer(name: str, source: str) -> None:
    """Refuse what open_clip would ask a model hub for, whether Shotline is offline or not."""
    if name.startswith("hf-hub:"):
        return
    if name.startswith(LOCAL):
        file = Path(name.removeprefix(LOCAL)) / CONFIG_NAME
        config = json.loads(file.read_text(encoding="utf-8")).get("model_cfg", {})
    else:
        config = open_clip.get_model_config(name)
    text = config.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise _foreign_tokenizer(source)


def _foreign_tokenizer(source: str) -> BackboneUnavailable:
    return BackboneUnavailable(
        f"Prompts cannot be tuned for the backbone {source!r}: its tokenizer is not CLIP's own.",
        fix="Choose a CLIP with CLIP's tokenizer, such as ViT-B-32 or the starter.",
        field="backbone",
    )


def _snapshot(text: str) -> str:
    """Turn `hf-hub:` into the `local-dir:` of its copy in the hub's cache on this machine."""
    if not text.startswith("hf-hub:"):
        return text
    repository = text.removeprefix("hf-hub:")
    config = _cached_file(repository, [CONFIG_NAME], text)
    _cached_file(repository, [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME], text)
    return f"{LOCAL}{config.parent}"


def _cached_weights(source: BackboneSource, tag_config: dict[str, Any]) -> Path:
    """Find on this machine the file that open_clip would download for a tag."""
    repository, _, name = tag_config.get("hf_hub", "").rpartition("/")
    if repository:
        names = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME] if not name else [name]
        if name == HF_WEIGHTS_NAME:
            names.insert(0, HF_SAFE_WEIGHTS_NAME)
        return _cached_file(repository, names, source.text)
    path = Path("~/.cache/clip").expanduser() / Path(tag_config.get("url", "")).name
    if not path.is_file():
        raise _not_here(source.text)
    return path


def _cached_file(repository: str, names: Sequence[str], source: str) -> Path:
    # Not by hf_hub_download: even with local_files_only it asks the hub for a list of agents.
    for name in names:
        try:
            path = try_to_load_from_cache(repository, name)
        except ValueError:  # not a repository's name
            break
        if isinstance(path, str):
            return Path(path)
    raise _not_here(source)


def _not_here(source: str) -> BackboneUnavailable:
    return BackboneUnavailable(
        f"The weights of {source!r} are not on this machine, and Shotline is offline.",
        fix="Copy the checkpoint here and name it as ARCHITECTURE@FILE, or allow the download once"
        " with --online.",
        field="backbone",
    )
