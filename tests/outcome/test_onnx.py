"""The network as ONNX: what `predict` says, from photographs as decoded, of any number and any size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.errors import RunFailure
from tune_cropshield.outcome.onnx import checked_difference, photographs_to_check, write_onnx
from tune_cropshield.outcome.onnx_preparation import Prepared
from tune_cropshield.outcome.predict import predict
from tune_cropshield.shell import install_command
from tune_cropshield.training.models import build_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # the exporter takes 2 to 12 s a network, on two cores

CLASSES = ["blight", "mosaic", "rust", "Blattflecken-ü"]


def trained(model: nn.Module, preparation: Preparation, paths: list[Path]) -> nn.Module:
    """Returns `model` after a few updates: untrained networks are so badly conditioned that fp32 alone moves their
    logits by more than 1e-3.
    """
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images = preparation.images(torch.from_numpy(np.stack([preparation.picture_of(path) for path in paths])))
    labels = torch.arange(len(paths)) % len(CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
    return model.eval()


def save_run(folder: Path, model: str, size: int, data: Path, network: nn.Module) -> Path:
    """Writes a trained run, as far as an export can see."""
    folder.mkdir()
    config = RunConfig(data=DataConfig(dir=str(data)), trial=TrialConfig(model=model, image_size=size))
    save_config(config, folder / "config.toml")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    (folder / "preparation.json").write_text("{}")
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def trained_run(folder: Path, model: str, size: int, data: Path) -> Path:
    """Writes a run whose network has learnt a little from the photographs in `data`."""
    torch.manual_seed(0)
    network = trained(build_model(model, len(CLASSES)), Preparation(size), photographs_below(data)[0][::8])
    return save_run(folder, model, size, data, network)


def load_run(run_dir: Path, model: str) -> nn.Module:
    network = build_model(model, len(CLASSES))
    network.load_state_dict(load_file(run_dir / "model.safetensors"))
    return network.eval()


def session_of(file: Path | bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Export:
    """A run and the file that was made of it. told: what the command printed, on both channels."""

    run_dir: Path
    file: Path
    told: str = ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, drawn_leaves: Path) -> Export:
    """The small network of 32 px, exported once for all tests, by the command in a process of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    run_dir = trained_run(folder / "run", "tiny_cnn", 32, drawn_leaves)
    command = ["export", str(run_dir), "--format", "onnx", "--to", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "tune_cropshield", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return Export(run_dir, folder / "out" / "model.onnx", done.stdout)


def photographs_of_many_sizes(folder: Path) -> Iterator[Path]:
    """Yields drawn leaves, cut to landscapes, portraits and strips, small and large."""
    drawn, _ = photographs_below(draw_leaves(folder / "leaves", classes=4, per_class=5, image_size=400))
    sizes = [(400, 400), (160, 160), (33, 31), (97, 64), (64, 97), (400, 300), (225, 400), (400, 133), (120, 400)]
    sizes += [(1200, 900), (700, 933), (20, 200), (200, 19), (32, 32), (36, 36), (36, 51), (9, 8), (1001, 333)]
    for number, (path, size) in enumerate(zip(drawn, sizes, strict=False)):
        with Image.open(path) as leaf:
            leaf.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
        yield folder / f"{number:02}.png"


def assert_says_what_predict_says(exported: Export, photographs: list[Path]) -> None:
    session = session_of(exported.file)
    said = set()
    for prediction in predict(exported.run_dir, photographs, torch.device("cpu")):
        pixels = np.asarray(decode_rgb(prediction.path))
        (shares,) = session.run(["probabilities"], {"images": pixels[None]})[0]
        assert prediction.probabilities == {
            name: pytest.approx(share, abs=1e-4) for name, share in zip(CLASSES, shares, strict=True)
        }
        assert next(iter(prediction.probabilities)) == CLASSES[int(shares.argmax())]
        said.add(round(float(shares[0]), 3))
    assert len(said) > len(photographs) / 2  # else everything would be close to everything


def test_it_says_of_photographs_of_any_size_what_predict_says(tiny: Export, tmp_path: Path) -> None:
    assert_says_what_predict_says(tiny, list(photographs_of_many_sizes(tmp_path)))


def test_it_says_of_real_leaves_at_four_sizes_what_predict_says(
    tiny: Export, real_leaves: Path, tmp_path: Path
) -> None:
    """All of them: benchmarks/onnx_vs_predict.py."""
    paths = photographs_below(real_leaves)[0][::150]
    for number, path in enumerate(paths):
        with Image.open(path) as leaf:
            for shorter in (96, 160, 320, 700):
                longer = shorter * (number % 3 + 3) // 3
                size = (shorter, longer) if number % 2 else (longer, shorter)
                leaf.resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"{number}_{shorter}.png")
    assert_says_what_predict_says(tiny, sorted(tmp_path.glob("*.png")))


def test_input_output_and_metadata_are_named(tiny: Export) -> None:
    session = session_of(tiny.file)
    (given,), (logits, probabilities) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (logits.name, logits.shape, probabilities.name) == ("logits", ["batch", 4], "probabilities")

    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert (metadata["model"], metadata["image_size"]) == ("tiny_cnn", "32")
    assert "turned upright (EXIF orientation)" in metadata["input"]
    preparation = json.loads(metadata["preparation"])
    assert (preparation["fit"], preparation["resize"], preparation["crop"]) == ("crop", 36, 32)


def test_photographs_of_one_size_are_asked_together_or_alone(tiny: Export) -> None:
    session = session_of(tiny.file)
    photographs = np.random.default_rng(0).integers(0, 256, (5, 61, 50, 3), dtype=np.uint8)
    logits, shares = session.run(None, {"images": photographs})
    alone = np.concatenate([session.run(["logits"], {"images": photographs[at : at + 1]})[0] for at in range(5)])
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert logits.std() > 0.01


def test_the_command_says_where_the_file_is_and_nothing_else(tiny: Export) -> None:
    path, difference = tiny.told.splitlines()

    assert path == str(tiny.file)
    assert difference.startswith("logits differ from PyTorch's by at most ")


def test_the_file_of_a_torchvision_network_says_it_too(tmp_path: Path, drawn_leaves: Path) -> None:
    run_dir = trained_run(tmp_path / "run", "resnet18", 64, drawn_leaves)
    assert write_onnx(run_dir, tmp_path / "model.onnx") <= 1e-3

    photographs = list(photographs_of_many_sizes(tmp_path))
    assert_says_what_predict_says(Export(run_dir, tmp_path / "model.onnx"), photographs)


# Width and height: both orientations, smaller and larger than the image, odd and even, strips, and the sizes at which a
# side is not resized. Pillow resizes the rows first where a tall photograph loses many of them.
SIZES = [(160, 160), (200, 300), (333, 201), (64, 97), (50, 40), (933, 700), (400, 9), (8, 300), (100, 301), (150, 301)]
SIZES += [(203, 451), (99, 1001), (31, 31), (35, 35), (35, 90), (90, 31), (8, 8), (900, 1700), (31, 500), (1000, 31)]


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_photograph_is_prepared_as_pillow_does_it_to_the_last_level(fit: str) -> None:
    """An odd side, noise, and every kind of fit; the network in it hands on what it is given."""
    preparation = Preparation(31, fit)  # type: ignore[arg-type]
    program = torch.onnx.export(
        Prepared(preparation).eval(),
        (torch.zeros(2, 50, 70, 3, dtype=torch.uint8),),
        dynamo=True,
        input_names=["images"],
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        verbose=False,
    )
    assert program is not None
    session = session_of(program.model_proto.SerializeToString())
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        photograph = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = preparation.picture(Image.fromarray(photograph))
        expected = preparation.images(torch.from_numpy(picture)[None]).numpy()
        (found,) = session.run(None, {"images": photograph[None]})
        assert np.abs(found - expected).max() < 1e-6, (width, height)


def test_synthetic_leaves_take_the_place_of_photographs_that_are_gone(tmp_path: Path) -> None:
    photographs = photographs_to_check(DataConfig(dir=str(tmp_path / "gone")))

    assert len(photographs) == 16
    assert len({photograph.tobytes() for photograph in photographs}) == 16


def test_a_file_that_gives_other_logits_is_refused(tiny: Export, drawn_leaves: Path) -> None:
    photographs = photographs_to_check(DataConfig(dir=str(drawn_leaves)))
    model = load_run(tiny.run_dir, "tiny_cnn")
    content = tiny.file.read_bytes()
    assert checked_difference(content, photographs, model, Preparation(32)) <= 1e-3

    proto = onnx.load_from_string(content)
    (bias,) = [weight for weight in proto.graph.initializer if weight.name == "model.classifier.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    message = r"^the ONNX file was not kept: a logit differs by .* from PyTorch's, more than 0\.001$"
    with pytest.raises(RunFailure, match=message):
        checked_difference(proto.SerializeToString(), photographs, model, Preparation(32))
    with pytest.raises(RunFailure, match=message):  # a network that was validated on another preparation
        checked_difference(content, photographs, model, Preparation(32, "squash"))


def test_a_missing_package_is_told_with_its_install_command(
    tmp_path: Path, drawn_leaves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = save_run(tmp_path / "run", "tiny_cnn", 32, drawn_leaves, build_model("tiny_cnn", len(CLASSES)))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))

    assert main(["export", str(run_dir), "--format", "onnx"]) == 2
    assert capsys.readouterr().err == (
        f"error: --format onnx needs onnxscript:  {install_command('onnx', 'onnxscript', 'onnxruntime')}\n"
    )


@pytest.mark.parametrize("model", ["resnet18", "efficientnet_b0"])
def test_the_weights_load_in_plain_torchvision(tmp_path: Path, drawn_leaves: Path, model: str) -> None:
    run_dir = save_run(tmp_path / "run", model, 32, drawn_leaves, build_model(model, len(CLASSES)))

    theirs = getattr(models, model)(weights=None, num_classes=len(CLASSES))
    theirs.load_state_dict(load_file(run_dir / "model.safetensors"), strict=True)

    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs.eval()(images), load_run(run_dir, model)(images))
