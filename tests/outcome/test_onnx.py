"""The network as ONNX: the same logits as PyTorch, from photographs' bytes, at any batch size."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
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
from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.folder import images_below
from tune_cropshield.errors import RunFailure
from tune_cropshield.outcome import onnx as onnx_export
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.models import build_model

pytestmark = pytest.mark.timeout(300)  # the exporter takes 8 s a network, alone on two cores

CLASSES = ["blight", "mosaic", "rust", "Blattflecken-ü"]


def trained(model: nn.Module, pictures: np.ndarray) -> nn.Module:
    """Returns `model` after a few updates: untrained networks are so badly conditioned that fp32 alone moves their
    logits by more than 1e-3.
    """
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images, labels = (
        evaluation_view(torch.from_numpy(pictures), pictures.shape[1]),
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


@pytest.fixture
def make_run(tmp_path: Path, drawn_leaves: Path) -> Callable[..., Path]:
    """Writes a trained run, as far as an export can see."""

    def make(model: str, size: int, data: Path = drawn_leaves) -> Path:
        folder = tmp_path / model
        folder.mkdir()
        save_config(
            RunConfig(data=DataConfig(dir=str(data)), trial=TrialConfig(model=model, image_size=size)),
            folder / "config.toml",
        )
        (folder / "classes.json").write_text(json.dumps(CLASSES))
        torch.manual_seed(0)
        pictures = np.stack([decode_rgb(path, size) for path in images_below(drawn_leaves)[::8]])
        save_file(trained(build_model(model, len(CLASSES)), pictures).state_dict(), folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize(("model", "size"), [("tiny_cnn", 32), ("efficientnet_b0", 64)])
def test_the_file_gives_pytorchs_logits_for_photographs_of_any_number(
    make_run: Callable[..., Path], drawn_leaves: Path, capfd: pytest.CaptureFixture[str], model: str, size: int
) -> None:
    run_dir = make_run(model, size)

    assert main(["export", str(run_dir), "--format", "onnx", "--to", str(run_dir / "out")]) == 0

    told = capfd.readouterr()
    assert told.err == ""  # the exporter is silent
    path, difference = told.out.splitlines()
    assert path == str(run_dir / "out" / "model.onnx")
    assert difference.startswith("logits differ from PyTorch's by at most ")

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (logits, probabilities) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", size, size, 3])
    assert (logits.name, logits.shape, probabilities.name) == ("logits", ["batch", 4], "probabilities")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert (metadata["model"], metadata["image_size"]) == (model, str(size))

    photographs = images_below(drawn_leaves)[::23]
    network = build_model(model, len(CLASSES))
    network.load_state_dict(load_file(run_dir / "model.safetensors"))
    network.eval()
    pictures = np.stack([decode_rgb(photograph, size) for photograph in photographs])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((torch.from_numpy(pictures) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(normalised).numpy()
    for count in (1, 3, len(photographs)):
        found, shares = session.run(None, {"images": pictures[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=1e-3 * max(1, np.abs(expected).max()), rtol=0)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert expected.std() > 0.01  # else everything would be close to everything


def test_it_says_of_photographs_what_predict_says(make_run: Callable[..., Path], drawn_leaves: Path) -> None:
    run_dir = make_run("tiny_cnn", 32)
    onnx_export.write_onnx(run_dir, run_dir / "model.onnx")
    session = onnxruntime.InferenceSession(run_dir / "model.onnx", providers=["CPUExecutionProvider"])

    for prediction in predict(run_dir, images_below(drawn_leaves)[::31], torch.device("cpu")):
        (shares,) = session.run(["probabilities"], {"images": decode_rgb(prediction.path, 32)[None]})[0]
        assert {
            name: pytest.approx(share, abs=0.02) for name, share in zip(CLASSES, shares, strict=True)
        } == prediction.probabilities


def test_drawn_leaves_take_the_place_of_photographs_that_are_gone(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = make_run("tiny_cnn", 32, data=tmp_path / "gone")

    assert onnx_export.write_onnx(run_dir, run_dir / "model.onnx") <= 1e-3
    assert (run_dir / "model.onnx").exists()


def test_a_file_that_gives_other_logits_is_not_kept(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run("tiny_cnn", 32)
    exported = onnx_export._exported

    def damaged(*arguments: object) -> bytes:
        proto = onnx.load_from_string(exported(*arguments))  # type: ignore[arg-type]
        (bias,) = [weight for weight in proto.graph.initializer if weight.name == "model.classifier.bias"]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
        return bytes(proto.SerializeToString())

    monkeypatch.setattr(onnx_export, "_exported", damaged)

    with pytest.raises(
        RunFailure, match=r"of tiny_cnn was not kept: a logit differs by .* from PyTorch's, more than 0\.001"
    ):
        onnx_export.write_onnx(run_dir, run_dir / "model.onnx")
    assert not (run_dir / "model.onnx").exists()


def test_a_missing_package_is_told_with_its_install_command(
    make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))

    assert main(["export", str(make_run("tiny_cnn", 32)), "--format", "onnx"]) == 2
    assert capsys.readouterr().err == (
        "error: --format onnx needs onnxscript: python -m pip install onnx onnxscript onnxruntime (uv run "
        "--extra onnx ... with uv)\n"
    )


@pytest.mark.parametrize("model", ["resnet18", "efficientnet_b0"])
def test_the_weights_load_in_plain_torchvision(make_run: Callable[..., Path], model: str) -> None:
    run_dir = make_run(model, 32)

    theirs = getattr(models, model)(weights=None, num_classes=len(CLASSES))
    theirs.load_state_dict(load_file(run_dir / "model.safetensors"), strict=True)

    ours = build_model(model, len(CLASSES))
    ours.load_state_dict(load_file(run_dir / "model.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs.eval()(images), ours.eval()(images))
