"""The engine `openvino` decides as PyTorch does, or is refused; and it tells nobody anything."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from torch import Tensor

from app.core.database import Database
from app.core.settings import BackboneSettings
from app.core.storage import LocalStorage
from app.predictions import openvino_engine
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import load_encoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder, least_cosine
from app.predictions.engines.torch_engine import TorchEncoder
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.errors import BackboneUnavailable
from models.predictor import Predictor
from tests.integration import tiny
from tests.integration.serving import predictions_of, serve

ROOT = Path(__file__).parents[2]
NAMES = ["a scratch on metal", "a clean surface", "a dent", "fabric", "a hole", "a blurred photo"]

# Records and refuses whatever asks for the network, in this process and in those it forks.
WATCHED = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, args[1:] if event == "socket.connect" else args, file=file)
        raise OSError("no network in this test")

sys.addaudithook(watch)
"""


@pytest.fixture(scope="session")
def openvino_settings(backbone_settings: BackboneSettings) -> BackboneSettings:
    return backbone_settings.model_copy(update={"engine": "openvino"})


@pytest.fixture(scope="session")
def encoder(openvino_settings: BackboneSettings) -> ImageEncoder:
    """In this module the encoder of the gateway, too."""
    encoder = load_encoder(openvino_settings)
    gc.collect()  # the backbone is gone, and its weights are not needed any more
    return encoder


@pytest.fixture(scope="module")
def starter() -> Backbone:
    return load_backbone("starter", device="cpu")


@pytest.fixture(scope="module")
def starter_encoder(starter: Backbone) -> OpenVinoEncoder:
    return OpenVinoEncoder(starter)


def draw(backbone: Backbone, count: int) -> Tensor:
    """Return random blots of a few sizes, which look less alike to an encoder than noise does."""
    generator = torch.Generator().manual_seed(count)
    size = backbone.pixels.size
    pictures = [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, 2 + index, 2 + index, generator=generator), (size, size)
        )
        for index in range(count)
    ]
    return (255 * torch.cat(pictures)).to(torch.uint8)


def assert_agreement(encoder: ImageEncoder, backbone: Backbone, count: int) -> None:
    pixels = draw(backbone, count)
    features, expected = encoder.encode(pixels), backbone.encode_batch(pixels)
    assert features.dtype == torch.float32
    assert features.shape == (count, backbone.embed_dim)
    assert least_cosine(features, expected) >= 0.999999
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    texts = backbone.encode_texts(NAMES)
    assert torch.equal((features @ texts.T).argmax(-1), (expected @ texts.T).argmax(-1))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_features_and_decisions_are_those_of_torch(
    encoder: ImageEncoder, tiny_backbone: Backbone, count: int
) -> None:
    assert_agreement(encoder, tiny_backbone, count)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_the_starters_features_and_decisions_are_those_of_torch(
    starter_encoder: OpenVinoEncoder, starter: Backbone, count: int
) -> None:
    assert_agreement(starter_encoder, starter, count)


def test_the_setting_chooses_the_engine(
    backbone_settings: BackboneSettings, encoder: ImageEncoder, tiny_backbone: Backbone
) -> None:
    assert backbone_settings.engine == "torch"
    assert isinstance(load_encoder(backbone_settings), TorchEncoder)
    assert isinstance(encoder, OpenVinoEncoder)
    assert (encoder.source, encoder.digest, encoder.pixels) == (
        tiny_backbone.source,
        tiny_backbone.digest,
        tiny_backbone.pixels,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_single_precision_on_as_many_threads_as_torch_has(
    tiny_backbone: Backbone, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compiled = OpenVinoEncoder(tiny_backbone)._compiled
    finally:
        torch.set_num_threads(before)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads


def test_a_batch_that_is_kept_is_not_written_over(
    encoder: ImageEncoder, tiny_backbone: Backbone
) -> None:
    first = encoder.encode(draw(tiny_backbone, 3))
    kept = first.clone()
    encoder.encode(draw(tiny_backbone, 3) // 2)

    assert torch.equal(first, kept)


def test_a_prediction_through_the_gateway(
    app: FastAPI,
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    tiny_backbone: Backbone,
) -> None:
    assert isinstance(predictions_of(app).batcher.encoder(), OpenVinoEncoder)
    served = serve(client, database, storage, artifacts[0])
    photographs = [tiny.photograph(label, 70) for label in range(3)]
    expected = Predictor(artifacts[0], tiny_backbone).predict(photographs)
    for photograph, wanted in zip(photographs, expected, strict=True):
        response = client.post(
            served.predict, content=photograph, headers={"content-type": "image/png"}
        )
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["decision"], answer["label"]) == (wanted.decision, wanted.label)
        assert answer["probability"] == pytest.approx(wanted.probability, abs=1e-5)


def test_without_the_extra_it_says_what_to_install(
    openvino_settings: BackboneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(BackboneUnavailable, match="OpenVINO cannot be imported") as caught:
        load_encoder(openvino_settings)
    assert "pip install 'shotline[openvino]'" in caught.value.fix
    assert caught.value.field == "SHOTLINE_BACKBONE_ENGINE"


def test_a_gpu_is_refused(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_backbone, "device", torch.device("cuda:1"))

    with pytest.raises(BackboneUnavailable, match="for CPUs, and the device is 'cuda:1'") as caught:
        OpenVinoEncoder(tiny_backbone)
    assert "SHOTLINE_BACKBONE_DEVICE=cpu" in caught.value.fix


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_refused(openvino_settings: BackboneSettings, precision: str) -> None:
    settings = openvino_settings.model_copy(update={"precision": precision})

    with pytest.raises(BackboneUnavailable, match=f"the precision is '{precision}'") as caught:
        load_encoder(settings)
    assert "SHOTLINE_BACKBONE_PRECISION=auto" in caught.value.fix


def turned(features: Tensor) -> Tensor:
    """Turn features by an angle whose cosine is 0.9998."""
    aside = torch.nn.functional.normalize(features.roll(1, -1) - features, dim=-1)
    aside = torch.nn.functional.normalize(
        aside - (aside * features).sum(-1, keepdim=True) * features, dim=-1
    )
    return 0.9998 * features + (1 - 0.9998**2) ** 0.5 * aside


@pytest.mark.parametrize(
    ("change", "cosine"),
    [(turned, "0.9998"), (lambda features: features * float("nan"), "nan")],
)
def test_features_that_are_not_those_of_torch_are_refused(
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Tensor], Tensor],
    cosine: str,
) -> None:
    encode = tiny_backbone.encode_batch
    monkeypatch.setattr(tiny_backbone, "encode_batch", lambda pixels: change(encode(pixels)))

    with pytest.raises(BackboneUnavailable, match=f"their cosine is {cosine}"):
        OpenVinoEncoder(tiny_backbone)


def test_a_backbone_that_cannot_be_converted_is_refused(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No conversion rule for aten::strange")

    monkeypatch.setattr(
        openvino_engine, "_import_openvino", lambda: SimpleNamespace(convert_model=fail)
    )
    with pytest.raises(BackboneUnavailable, match="aten::strange") as caught:
        OpenVinoEncoder(tiny_backbone)
    assert caught.value.fix == "Set SHOTLINE_BACKBONE_ENGINE=torch."


def run_watched(code: str, tmp_path: Path) -> tuple[list[str], list[Path]]:
    """Run `code`; return its attempts to reach the network, and the files in its home folder."""
    home, attempts = tmp_path / "home", tmp_path / "attempts"
    home.mkdir()
    attempts.touch()
    # OpenVINO's telemetry takes CI for a wish to be left alone; here only the code may prevent it.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "TF_BUILD", "JENKINS_URL") and not name.startswith("XDG_")
    }
    environment |= {"HOME": str(home), "ATTEMPTS": str(attempts), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", WATCHED + code], env=environment, cwd=ROOT, check=True, timeout=300
    )
    return attempts.read_text().splitlines(), [path for path in home.rglob("*") if path.is_file()]


def test_nothing_is_reported_to_anyone(openvino_settings: BackboneSettings, tmp_path: Path) -> None:
    code = f"""
import torch
from app.core.settings import BackboneSettings
from app.predictions.engines.loading import load_encoder

encoder = load_encoder(BackboneSettings(**{openvino_settings.model_dump()!r}))
encoder.encode(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    assert run_watched(code, tmp_path) == ([], [])


def test_the_watcher_sees_what_openvino_reports_when_nothing_keeps_it_from_that(
    tmp_path: Path,
) -> None:
    attempts, files = run_watched("import openvino\n", tmp_path)

    assert any("google-analytics" in attempt for attempt in attempts)
    assert files
