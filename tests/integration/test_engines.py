"""Every engine decides as PyTorch does, or is refused; the fastest is taken; nobody is told."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.settings import BackboneSettings
from app.core.storage import LocalStorage
from app.predictions.engines import loading, machine, speed
from app.predictions.engines.agreement import LEAST_COSINE, Probe, agreement, least_cosine, pictures
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import CONVERTED, load_encoder
from app.predictions.engines.onnx_engine import OnnxEncoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder, streams_of
from app.predictions.engines.pipeline import Result, pipeline_of
from app.predictions.engines.store import Choice, EngineStore
from app.predictions.engines.torch_engine import CompiledTorchEncoder, TorchEncoder
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.errors import BackboneUnavailable
from models.predictor import Predictor
from tests.integration import tiny
from tests.integration.serving import serve
from tests.integration.watched import run_watched

ROOT = Path(__file__).parents[2]
NAMES = ["a scratch on metal", "a clean surface", "a dent", "fabric", "a hole", "a blurred photo"]
KINDS = {"openvino": OpenVinoEncoder, "onnx": OnnxEncoder}


def settings_for(settings: BackboneSettings, **changes: object) -> BackboneSettings:
    return settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's converted encoders are kept, so that each is converted once."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module", params=sorted(CONVERTED))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def converted(backbone_settings: BackboneSettings, name: str, engines: Path) -> ImageEncoder:
    return load_encoder(settings_for(backbone_settings, engine=name), engines)


@pytest.fixture
def app_encoder(converted: ImageEncoder) -> ImageEncoder:
    return converted


@pytest.fixture(scope="module")
def starter() -> Backbone:
    return load_backbone("starter", device="cpu")


@pytest.fixture
def openvino(backbone_settings: BackboneSettings, engines: Path) -> OpenVinoEncoder:
    """The tiny backbone's encoder, with two streams."""
    settings = settings_for(backbone_settings, engine="openvino", threads=2)
    encoder = load_encoder(settings, engines)
    assert isinstance(encoder, OpenVinoEncoder)
    return encoder


def draw(size: int, count: int) -> np.ndarray:
    """Return random blots of a few sizes, which look less alike to an encoder than noise does."""
    generator = torch.Generator().manual_seed(count)
    blots = [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, 2 + index, 2 + index, generator=generator), (size, size)
        )
        for index in range(count)
    ]
    return (255 * torch.cat(blots)).to(torch.uint8).numpy()


def assert_agreement(encoder: ImageEncoder, backbone: Backbone, count: int) -> None:
    pixels = draw(backbone.pixels.size, count)
    features = encoder.encode(pixels)
    expected = backbone.encode_batch(torch.from_numpy(pixels)).numpy()
    assert features.dtype == np.float32
    assert features.shape == (count, backbone.embed_dim)
    assert least_cosine(features, expected) >= 0.999999
    np.testing.assert_allclose(features, expected, atol=1e-5)
    texts = backbone.encode_texts(NAMES).numpy()
    assert ((features @ texts.T).argmax(-1) == (expected @ texts.T).argmax(-1)).all()


@pytest.mark.parametrize("count", [1, 3, 16])
def test_features_and_decisions_are_those_of_torch(
    converted: ImageEncoder, tiny_backbone: Backbone, count: int
) -> None:
    assert_agreement(converted, tiny_backbone, count)


def test_the_starters_features_and_decisions_are_those_of_torch(
    starter: Backbone, backbone_settings: BackboneSettings, name: str, engines: Path
) -> None:
    settings = settings_for(backbone_settings, source="starter", engine=name)
    encoder = load_encoder(settings, engines)
    for count in (1, 3, 16):
        assert_agreement(encoder, starter, count)


def test_the_setting_chooses_the_engine(
    backbone_settings: BackboneSettings,
    converted: ImageEncoder,
    name: str,
    tiny_backbone: Backbone,
    tmp_path: Path,
) -> None:
    assert isinstance(load_encoder(backbone_settings, tmp_path), TorchEncoder)
    assert not list(tmp_path.iterdir())  # PyTorch itself needs no files
    assert isinstance(converted, KINDS[name])
    assert name in converted.about
    assert (converted.source, converted.digest, converted.pixels) == (
        tiny_backbone.source,
        tiny_backbone.digest,
        tiny_backbone.pixels,
    )


def test_openvino_computes_in_single_precision_on_the_threads_that_are_set(
    backbone_settings: BackboneSettings, engines: Path
) -> None:
    for threads, streams in ((1, 1), (2, 2)):
        settings = settings_for(backbone_settings, engine="openvino", threads=threads)
        encoder = load_encoder(settings, engines)
        assert isinstance(encoder, OpenVinoEncoder)
        for model, among in ((encoder._together, 1), (encoder._apart, streams)):
            compiled = model.compiled
            assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
            assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
            assert compiled.get_property("NUM_STREAMS") == among


def test_streams_have_as_many_threads_each() -> None:
    assert [streams_of(threads) for threads in (1, 2, 3, 4, 5, 6, 8, 9, 16)] == [
        1, 2, 3, 4, 1, 3, 4, 3, 4,
    ]  # fmt: skip


def test_two_batches_under_way_are_answered_each_with_its_own_images(
    openvino: OpenVinoEncoder,
) -> None:
    pixels = draw(32, 24)
    alone = np.concatenate([openvino.encode(image[None]) for image in pixels])

    ends = [0, 1, 4, 6, 7, 12, 24]  # alone, shared out among streams, in more parts than streams
    begun = [openvino.begin(pixels[a:b]) for a, b in pairwise(ends)]
    found = np.concatenate([features() for features in begun])

    np.testing.assert_allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4], ids=["together", "shared out"])
def test_pixels_stay_until_they_are_computed(openvino: OpenVinoEncoder, count: int) -> None:
    """OpenVINO reads them where they are: else another batch's would lie there by then."""
    pixels = draw(32, count)
    there = weakref.ref(pixels)

    features = openvino.begin(pixels)
    del pixels
    assert there() is not None
    features()
    del features
    assert there() is None


def test_what_rides_together_is_answered_as_if_it_came_alone(
    backbone_settings: BackboneSettings, name: str, engines: Path
) -> None:
    """Two batches under way, as in the gateway, while their memory would be used again."""
    settings = settings_for(backbone_settings, source="starter", engine=name, threads=2)
    encoder = load_encoder(settings, engines)
    pipeline = pipeline_of(encoder)
    pictures = draw(encoder.pixels.size, 12)
    alone = np.concatenate([encoder.encode(picture[None]) for picture in pictures])
    order = np.random.default_rng(0).permutation(np.arange(120) % 12)

    begun: list[Result] = []
    found = []
    for chosen in order.reshape(-1, 4):
        begun.append(pipeline.begin(np.stack([pictures[index] for index in chosen])))
        np.full((4, *pictures.shape[1:]), 255, dtype=np.uint8)  # where the batch was, if it is gone
        if len(begun) == 2:
            found.append(begun.pop(0)())
    found += [features() for features in begun]

    np.testing.assert_allclose(np.concatenate(found), alone[order], atol=1e-4)


def test_one_part_that_fails_fails_its_batch_and_no_other(openvino: OpenVinoEncoder) -> None:
    pixels = draw(32, 4)
    expected = openvino.encode(pixels)

    class Failing:
        def __init__(self, request: Any) -> None:
            self._request = request

        def __getattr__(self, name: str) -> Any:
            return getattr(self._request, name)

        def wait(self) -> None:
            self._request.wait()
            raise RuntimeError("no memory")

    idle = openvino._apart._idle
    idle[0] = failing = Failing(idle[0])
    with pytest.raises(RuntimeError, match="no memory"):
        openvino.encode(pixels)
    idle.remove(failing)
    np.testing.assert_allclose(openvino.encode(pixels), expected, atol=1e-5)


def test_a_batch_that_is_kept_is_not_written_over(converted: ImageEncoder) -> None:
    first = converted.encode(draw(32, 3))
    kept = first.copy()
    converted.encode(draw(32, 3) // 2)

    assert (first == kept).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_torch_decides_as_torch_does(tiny_backbone: Backbone) -> None:
    compiled = CompiledTorchEncoder(tiny_backbone, "compiled", max_batch=1)
    for count in (1, 3):
        assert_agreement(compiled, tiny_backbone, count)


# What `auto` does


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have engines measured at given images per second; return who was measured."""

    def give(**given: float) -> list[str]:
        measured: list[str] = []

        def say(encoders: dict[str, ImageEncoder]) -> speed.Speeds:
            measured.extend(encoders)
            return {name: {1: given[name], 16: given[name]} for name in encoders}

        monkeypatch.setattr(loading, "images_per_second", say)
        return measured

    return give


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"torch": 1, "openvino": 3, "onnx": 2}, OpenVinoEncoder),
        ({"torch": 1, "openvino": 2, "onnx": 3}, OnnxEncoder),
        ({"torch": 9, "openvino": 2, "onnx": 3}, TorchEncoder),
    ],
)
def test_auto_takes_the_fastest_and_says_so(
    backbone_settings: BackboneSettings,
    speeds: Callable[..., list[str]],
    tmp_path: Path,
    given: dict[str, float],
    kind: type[ImageEncoder],
) -> None:
    assert BackboneSettings.model_fields["engine"].default == "auto"
    measured = speeds(**given)
    settings = settings_for(backbone_settings, engine="auto")
    encoder = load_encoder(settings, tmp_path)
    assert isinstance(encoder, kind)
    assert sorted(measured) == ["onnx", "openvino", "torch"]
    ranked = sorted(given, key=lambda engine: -given[engine])
    assert encoder.about.startswith(f"{ranked[0]} {given[ranked[0]]:.0f} in batches of 1, ")
    assert all(engine in encoder.about for engine in ranked)

    again = load_encoder(settings, tmp_path)
    assert isinstance(again, kind)
    assert len(measured) == 3  # nothing is measured twice
    pixels = draw(32, 2)
    np.testing.assert_allclose(again.encode(pixels), encoder.encode(pixels), atol=1e-6)
    (folder,) = tmp_path.iterdir()
    kept = [path.name for path in folder.iterdir() if path.is_dir()]
    assert kept == ([] if kind is TorchEncoder else [ranked[0]])  # and nothing kept in vain


def test_auto_leaves_out_what_does_not_decide_as_torch_does(
    backbone_settings: BackboneSettings,
    speeds: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = speeds(torch=1, openvino=3, onnx=2)
    encode = OpenVinoEncoder.encode
    monkeypatch.setattr(OpenVinoEncoder, "encode", lambda *args: turned(encode(*args)))
    encoder = load_encoder(settings_for(backbone_settings, engine="auto"), tmp_path)
    assert isinstance(encoder, OnnxEncoder)
    assert "openvino refused: its features are not those of PyTorch" in encoder.about
    assert sorted(measured) == ["onnx", "torch"]


def test_auto_goes_on_without_engines_that_are_missing_or_fail(
    backbone_settings: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(
        CONVERTED, "openvino", CONVERTED["openvino"]._replace(convert=no_conversion)
    )
    encoder = load_encoder(settings_for(backbone_settings, engine="auto"), tmp_path)
    assert isinstance(encoder, TorchEncoder)
    assert "onnx refused: not installed" in encoder.about
    assert "openvino refused: RuntimeError: No conversion rule" in encoder.about


def no_conversion(*_: object) -> None:
    raise RuntimeError("No conversion rule for aten::strange")


def test_auto_decides_with_torch_where_nothing_can_be_written(
    backbone_settings: BackboneSettings, tmp_path: Path
) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    settings = settings_for(backbone_settings, engine="auto")
    encoder = load_encoder(settings, tmp_path / "engines")
    assert isinstance(encoder, TorchEncoder)
    assert "no other could be tried" in encoder.about
    with pytest.raises(BackboneUnavailable, match="OpenVINO cannot take over"):
        load_encoder(settings_for(settings, engine="openvino"), tmp_path / "engines")


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_kept_files_that_are_damaged_are_made_anew(
    backbone_settings: BackboneSettings, tmp_path: Path, harm: str
) -> None:
    settings = settings_for(backbone_settings, engine="onnx")
    load_encoder(settings, tmp_path)
    (file,) = tmp_path.rglob("encoder.onnx")
    data = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
    else:
        data[len(data) // 2] ^= 255
        file.write_bytes(data if harm == "flip" else data[: len(data) // 2])
    encoder = load_encoder(settings, tmp_path)
    assert "kept from before" not in encoder.about
    assert "kept from before" in load_encoder(settings, tmp_path).about


def test_kept_files_are_checked_against_what_torch_said(
    backbone_settings: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(backbone_settings, engine="onnx")
    load_encoder(settings, tmp_path)
    encode, sizes = OnnxEncoder.encode, []

    def wrong_at_first(self: OnnxEncoder, pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        features = encode(self, pixels)
        return turned(features) if len(sizes) == 1 else features

    monkeypatch.setattr(OnnxEncoder, "encode", wrong_at_first)
    assert "kept from before" not in load_encoder(settings, tmp_path).about
    assert "kept from before" in load_encoder(settings, tmp_path).about


def test_another_machine_backbone_or_setting_is_another_choice(
    backbone_settings: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {machine.key("sha256:a", "auto"), machine.key("sha256:b", "auto")}
    keys.add(machine.key("sha256:a", "onnx"))
    monkeypatch.setattr(machine, "_processor", lambda: ["another"])
    keys.add(machine.key("sha256:a", "auto"))
    assert len(keys) == 4

    other = tiny.write_backbone(tmp_path / "other", seed=1)
    for source in (backbone_settings.source, other):
        settings = settings_for(backbone_settings, engine="onnx", source=source)
        load_encoder(settings, tmp_path / "engines")
    assert len(list((tmp_path / "engines").iterdir())) == 2


def test_only_a_few_choices_are_kept(tiny_backbone: Backbone, tmp_path: Path) -> None:
    store, probe = EngineStore(tmp_path), Probe.of(tiny_backbone)
    choice = Choice(engine="torch", source="s", digest="d", pixels=tiny_backbone.pixels, trials=[])
    for number in range(6):
        with store.preparing() as folder:
            store.keep(str(number), folder, choice, probe)
        os.utime(tmp_path / str(number), (number, number))
        assert store.read("0") is not None  # which makes it the youngest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "3", "4", "5"]


def test_where_another_process_was_first_theirs_stays(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    store, probe = EngineStore(tmp_path), Probe.of(tiny_backbone)
    choice = Choice(engine="torch", source="s", digest="d", pixels=tiny_backbone.pixels, trials=[])
    with store.preparing() as first, store.preparing() as second:
        assert store.keep("key", first, choice, probe) == tmp_path / "key"
        other = choice.model_copy(update={"source": "another"})
        assert store.keep("key", second, other, probe) == second
    found = store.read("key")
    assert found is not None
    assert found[0].source == "s"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_start_with_a_kept_engine_needs_no_torch(
    backbone_settings: BackboneSettings, converted: ImageEncoder, name: str, engines: Path
) -> None:
    settings = settings_for(backbone_settings, engine=name)
    code = f"""
import sys
from pathlib import Path
import numpy as np
import app.main
from app.core.settings import BackboneSettings
from app.predictions.engines.loading import load_encoder

encoder = load_encoder(BackboneSettings(**{settings.model_dump()!r}), Path({str(engines)!r}))
print(encoder.encode(np.zeros((2, 3, 32, 32), np.uint8)).shape)
print([module for module in ("torch", "open_clip", "sklearn", "scipy") if module in sys.modules])
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120, capture_output=True
    )
    assert said.stdout.decode().splitlines()[-2:] == ["(2, 16)", "[]"]


def test_the_gateway_serves_with_it_and_says_so(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    tiny_backbone: Backbone,
    converted: ImageEncoder,
) -> None:
    assert client.get("/readyz").json()["about"]["backbone"] == converted.about
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


# What is refused


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_without_the_extra_it_says_what_to_install(
    backbone_settings: BackboneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(BackboneUnavailable, match=f"{package} cannot be imported") as caught:
        load_encoder(settings_for(backbone_settings, engine=name), tmp_path)
    assert f"pip install 'shotline[{name}]'" in caught.value.fix
    assert caught.value.field == "SHOTLINE_BACKBONE_ENGINE"


def test_a_gpu_is_refused(
    backbone_settings: BackboneSettings,
    tiny_backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(tiny_backbone, "device", torch.device("cuda:1"))
    loader = loading._Loader(settings_for(backbone_settings, engine=name), EngineStore(tmp_path))

    with pytest.raises(BackboneUnavailable, match="for CPUs, and the device is 'cuda:1'") as caught:
        loader._require_usable(CONVERTED[name], name, tiny_backbone)
    assert "SHOTLINE_BACKBONE_DEVICE=cpu" in caught.value.fix
    assert loader._candidates(tiny_backbone) == ["torch-compile"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_refused(
    backbone_settings: BackboneSettings, tmp_path: Path, name: str, precision: str
) -> None:
    settings = settings_for(backbone_settings, engine=name, precision=precision)

    with pytest.raises(BackboneUnavailable, match=f"the precision is '{precision}'") as caught:
        load_encoder(settings, tmp_path)
    assert "SHOTLINE_BACKBONE_PRECISION=auto" in caught.value.fix


def turned(features: np.ndarray) -> np.ndarray:
    """Turn features by an angle whose cosine is 0.9998."""
    aside = np.roll(features, 1, -1)
    aside = aside - (aside * features).sum(-1, keepdims=True) * features
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    return 0.9998 * features + (1 - 0.9998**2) ** 0.5 * aside


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (turned, "their cosine is 0.9998"),
        (lambda features: features * float("nan"), "their cosine is nan"),
    ],
)
def test_features_that_are_not_those_of_torch_are_refused(
    backbone_settings: BackboneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    said: str,
) -> None:
    encode = KINDS[name].encode
    monkeypatch.setattr(KINDS[name], "encode", lambda *args: change(encode(*args)))

    with pytest.raises(BackboneUnavailable, match=said):
        load_encoder(settings_for(backbone_settings, engine=name), tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_decisions_are_refused_whatever_the_cosine(tiny_backbone: Backbone) -> None:
    probe = Probe.of(tiny_backbone)
    features = probe.features.astype(np.float64)
    # Two classes on both sides of the first picture, nearer to each other than rounding.
    aside = np.roll(features[0], 1) - (np.roll(features[0], 1) @ features[0]) * features[0]
    aside *= 1e-3 / np.linalg.norm(aside)
    texts = np.stack([features[0] + aside, features[0] - aside])

    class Nudged:
        source, digest, about, pixels = "s", "d", "a", tiny_backbone.pixels

        def encode(self, pixels: np.ndarray) -> np.ndarray:
            moved = features[: len(pixels)].copy()
            moved[0] -= 2 * aside
            return moved

    told = Probe(features + np.where(np.arange(16)[:, None] == 0, aside, 0), texts)
    cosine, wrong = agreement(Nudged(), told)
    assert cosine >= LEAST_COSINE
    assert wrong is not None
    assert "it decides otherwise than PyTorch on" in wrong


def test_a_backbone_that_cannot_be_converted_is_refused(
    backbone_settings: BackboneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setitem(CONVERTED, name, CONVERTED[name]._replace(convert=no_conversion))
    with pytest.raises(BackboneUnavailable, match="aten::strange") as caught:
        load_encoder(settings_for(backbone_settings, engine=name), tmp_path)
    assert caught.value.fix == "Set SHOTLINE_BACKBONE_ENGINE=auto or torch."


def test_pictures_are_many_and_always_the_same() -> None:
    shown = pictures(20)
    assert shown.shape == (16, 3, 20, 20)
    assert len({picture.tobytes() for picture in shown}) == 16
    assert (pictures(20) == shown).all()


# What is told to others


def test_nothing_is_reported_to_anyone(backbone_settings: BackboneSettings, tmp_path: Path) -> None:
    settings = settings_for(backbone_settings, engine="auto")
    code = f"""
from pathlib import Path
import numpy as np
from app.core.settings import BackboneSettings
from app.predictions.engines.loading import load_encoder

for _ in range(2):
    folder = Path({str(tmp_path / "engines")!r})
    encoder = load_encoder(BackboneSettings(**{settings.model_dump()!r}), folder)
    encoder.encode(np.zeros((2, 3, 32, 32), np.uint8))
assert "openvino" in sys.modules and "onnxruntime" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    assert run_watched(code, tmp_path) == ([], [])
    (choice,) = (tmp_path / "engines").rglob("choice.json")
    refused = [trial["refused"] for trial in json.loads(choice.read_text())["trials"]]
    assert refused == [None] * 3


def test_the_watcher_sees_what_engines_report_when_nothing_keeps_them_from_that(
    tmp_path: Path,
) -> None:
    attempts, files = run_watched("import openvino\n", tmp_path / "openvino")
    assert any("google-analytics" in attempt for attempt in attempts)
    assert files

    # This one's calls are not Python's, but what it keeps of itself is seen.
    _, files = run_watched("import onnxruntime\n", tmp_path / "onnx")
    assert any("onnxruntime" in str(file) for file in files)
