"""docs/results.md's own lines, run as they stand there, say what `predict` says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, Fit, RunConfig, TrialConfig, save_config
from tune_cropshield.data.preparation import Preparation, judged_on
from tune_cropshield.outcome.onnx import write_onnx
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.models import build_model

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
CLASSES = ["blight", "healthy", "rust"]
SIZES = [(160, 160), (301, 200), (97, 64), (64, 97), (700, 933), (40, 333)]  # width, height


def lines_of_the_page(number: int) -> str:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]


def write_best(tmp_path: Path, fit: Fit, model: str = "resnet18") -> Path:
    """Returns a folder with best/, of a network that nobody trained."""
    best = tmp_path / "best"
    best.mkdir()
    torch.manual_seed(0)
    network = build_model(model, len(CLASSES)).eval()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight.data *= 10  # a network that nobody trained says nearly the same of every photograph
    config = RunConfig(data=DataConfig(dir=str(tmp_path), fit=fit), trial=TrialConfig(model=model, image_size=64))
    save_config(config, best / "config.toml")
    (best / "classes.json").write_text(json.dumps(CLASSES))
    (best / "preparation.json").write_text(json.dumps(judged_on(config).as_dict()))
    save_file(network.state_dict(), best / "model.safetensors")
    return tmp_path


def assert_the_lines_say_what_predict_says(lines: str, folder: Path, most: float) -> None:
    """Runs the page's lines on photographs of several sizes, one of which lies on its side."""
    rng = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        noise = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
        path = folder / f"{number}.png"
        noise.resize((width, height), Image.Resampling.BICUBIC).save(path, exif=exif)
        paths.append(path)
    loop = "import glob\nfor leaf in sorted(glob.glob('*.png')):\n"
    body = "".join(f"    {line}\n" for line in lines.replace('"leaf.jpg"', "leaf").splitlines())
    done = subprocess.run(
        [sys.executable, "-c", loop + body], cwd=folder, capture_output=True, text=True, check=True, timeout=200
    )
    said = [json.loads(line.replace("'", '"')) for line in done.stdout.splitlines()]
    expected = [prediction.probabilities for prediction in predict(folder / "best", paths, torch.device("cpu"))]
    assert len(said) == len(SIZES)
    for found, wanted in zip(said, expected, strict=True):
        assert found == {name: pytest.approx(share, abs=most) for name, share in wanted.items()}
    assert len({round(found["rust"], 4) for found in said}) == len(
        SIZES
    )  # else everything would be close to everything


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_plain_torchvision_gives_predicts_probabilities(tmp_path: Path, fit: Fit) -> None:
    assert_the_lines_say_what_predict_says(lines_of_the_page(0), write_best(tmp_path, fit), most=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_onnx_file_gives_them_too(tmp_path: Path, fit: Fit) -> None:
    folder = write_best(tmp_path, fit, "tiny_cnn")  # its file is written in a moment
    write_onnx(folder / "best", folder / "best" / "model.onnx")
    assert_the_lines_say_what_predict_says(lines_of_the_page(1), folder, most=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_run_of_an_earlier_version_is_used_and_said_to_be_one(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_best(tmp_path, "crop", "tiny_cnn")
    (folder / "best" / "preparation.json").unlink()
    Image.new("RGB", (80, 70), (40, 120, 30)).save(folder / "leaf.png")
    rest = [str(folder / "leaf.png")] if command == "predict" else ["--format", "onnx"]
    assert main([command, str(folder / "best"), *rest]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (1 if command == "predict" else 2)
    assert err.startswith(f"{folder / 'best'} was trained by an earlier version, which resized photographs twice")
    assert len(err.splitlines()) == 1


def test_the_file_says_all_that_is_done() -> None:
    assert Preparation(224).as_dict() == {
        "colour_order": "RGB",
        "upright": True,
        "fit": "crop",
        "resized_side": "shorter",
        "resize": 256,
        "interpolation": "bilinear",
        "antialias": True,
        "crop": 224,
        "fill": None,
        "image_size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
    }
    padded, squashed = Preparation(224, "pad").as_dict(), Preparation(224, "squash").as_dict()
    assert [padded[key] for key in ("fit", "resized_side", "resize", "crop")] == ["pad", "longer", 224, None]
    assert padded["fill"] == [124, 116, 104]
    assert [squashed[key] for key in ("fit", "resized_side", "resize", "crop", "fill")] == [
        *("squash", "both", 224, None, None)
    ]
