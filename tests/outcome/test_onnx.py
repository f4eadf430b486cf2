"""The network as ONNX: the same logits as PyTorch, from photographs' bytes, at any batch size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.data.augment import evaluation_view
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.errors import RunFailure
from tune_cropshield.outcome.onnx import checked_difference, pictures_to_check, write_onnx
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.models import build_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # the exporter takes 2 to 8 s a network, on two cores

CLASSES = ["blight", "mosaic", "rust", "Blattflecken-ü"]


def trained(model: nn.Module, pictures: np.ndarray, size: int) -> nn.Module:
    """Returns `model` after a few updates: untrained networks are so badly conditioned that fp32 alone moves their
    logits by more than 1e-3.
    """
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images, labels = (
        evaluation_view(torch.from_numpy(pictures), size),
        torch.arange(len(pictures)) % len(CLASSES),
    )
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
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def trained_run(folder: Path, model: str, size: int, data: Path) -> Path:
    """Writes a run whose network has learnt a little from the photographs in `data`."""
    torch.manual_seed(0)
    pictures = np.stack([Preparation(size).picture_of(path) for path in photographs_below(data)[0][::8]])
    return save_run(folder, model, size, data, trained(build_model(model, len(CLASSES)), pictures, size))


def load_run(run_dir: Path, model: str) -> nn.Module:
    network = build_model(model, len(CLASSES))
    network.load_state_dict(load_file(run_dir / "model.safetensors"))
    return network.eval()


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


def assert_gives_pytorchs_logits(exported: Export, model: str, size: int, photographs: list[Path]) -> None:
    side = Preparation(size).store_side
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    (given,), (logits, probabilities) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", side, side, 3])
    assert (logits.name, logits.shape, probabilities.name) == ("logits", ["batch", 4], "probabilities")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert (metadata["model"], metadata["image_size"]) == (model, str(size))

    pictures = np.stack([Preparation(size).picture_of(photograph) for photograph in photographs])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    middle = slice((side - size) // 2, (side + size) // 2)
    normalised = ((torch.from_numpy(pictures[:, middle, middle]) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = load_run(exported.run_dir, model)(normalised).numpy()
    for count in (1, 3, len(photographs)):
        found, shares = session.run(None, {"images": pictures[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=1e-3 * max(1, np.abs(expected).max()), rtol=0)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert expected.std() > 0.01  # else everything would be close to everything


def test_the_file_gives_pytorchs_logits_for_photographs_of_any_number(tiny: Export, drawn_leaves: Path) -> None:
    assert_gives_pytorchs_logits(tiny, "tiny_cnn", 32, photographs_below(drawn_leaves)[0][::23])


def test_the_command_says_where_the_file_is_and_nothing_else(tiny: Export) -> None:
    path, difference = tiny.told.splitlines()

    assert path == str(tiny.file)
    assert difference.startswith("logits differ from PyTorch's by at most ")


def test_the_file_of_a_torchvision_network_gives_its_logits_too(tmp_path: Path, drawn_leaves: Path) -> None:
    run_dir = trained_run(tmp_path / "run", "efficientnet_b0", 64, drawn_leaves)
    assert write_onnx(run_dir, tmp_path / "model.onnx") <= 1e-3

    exported = Export(run_dir, tmp_path / "model.onnx")
    assert_gives_pytorchs_logits(exported, "efficientnet_b0", 64, photographs_below(drawn_leaves)[0][::23])


@pytest.mark.parametrize("side", [160, 512])
def test_it_says_of_photographs_what_predict_says(tiny: Export, tmp_path: Path, side: int) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=4, per_class=4, image_size=side)
    session = onnxruntime.InferenceSession(tiny.file, providers=["CPUExecutionProvider"])

    for prediction in predict(tiny.run_dir, photographs_below(leaves)[0], torch.device("cpu")):
        (shares,) = session.run(["probabilities"], {"images": Preparation(32).picture_of(prediction.path)[None]})[0]
        assert prediction.probabilities == {
            name: pytest.approx(share, abs=1e-3) for name, share in zip(CLASSES, shares, strict=True)
        }


def test_synthetic_leaves_take_the_place_of_photographs_that_are_gone(tmp_path: Path) -> None:
    pictures = pictures_to_check(str(tmp_path / "gone"), 32)

    assert (pictures.shape, pictures.dtype) == ((16, 36, 36, 3), np.uint8)
    assert len({picture.tobytes() for picture in pictures}) == 16


def test_a_file_that_gives_other_logits_is_refused(tiny: Export, drawn_leaves: Path) -> None:
    pictures = pictures_to_check(str(drawn_leaves), 32)
    with torch.inference_mode():
        expected = load_run(tiny.run_dir, "tiny_cnn")(evaluation_view(torch.from_numpy(pictures), 32)).numpy()
    content = tiny.file.read_bytes()
    proto = onnx.load_from_string(content)
    (bias,) = [weight for weight in proto.graph.initializer if weight.name == "model.classifier.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))

    assert checked_difference(content, pictures, expected, "tiny_cnn") <= 1e-3
    with pytest.raises(
        RunFailure, match=r"of tiny_cnn was not kept: a logit differs by .* from PyTorch's, more than 0\.001"
    ):
        checked_difference(proto.SerializeToString(), pictures, expected, "tiny_cnn")


def test_a_missing_package_is_told_with_its_install_command(
    tmp_path: Path, drawn_leaves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = save_run(tmp_path / "run", "tiny_cnn", 32, drawn_leaves, build_model("tiny_cnn", len(CLASSES)))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))

    assert main(["export", str(run_dir), "--format", "onnx"]) == 2
    assert capsys.readouterr().err == (
        "error: --format onnx needs onnxscript: python -m pip install onnx onnxscript onnxruntime (uv run "
        "--extra onnx ... with uv)\n"
    )


@pytest.mark.parametrize("model", ["resnet18", "efficientnet_b0"])
def test_the_weights_load_in_plain_torchvision(tmp_path: Path, drawn_leaves: Path, model: str) -> None:
    run_dir = save_run(tmp_path / "run", model, 32, drawn_leaves, build_model(model, len(CLASSES)))

    theirs = getattr(models, model)(weights=None, num_classes=len(CLASSES))
    theirs.load_state_dict(load_file(run_dir / "model.safetensors"), strict=True)

    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs.eval()(images), load_run(run_dir, model)(images))
