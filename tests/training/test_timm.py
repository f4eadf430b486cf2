"""Networks of timm: names, heads, sizes, weights, what they want of their images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tune_cropshield.config.families import family_of, has_fixed_size, has_weights
from tune_cropshield.config.model_names import check_model_name
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.preparation import Preparation, judged_on, normalisation_of
from tune_cropshield.errors import ConfigError, UserError
from tune_cropshield.memory.predict.estimate import estimate_memory
from tune_cropshield.outcome.onnx import write_onnx
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.model_checks import check_network, check_pretrained
from tune_cropshield.training.models import build_model, head_of
from tune_cropshield.training.published_weights import weights_file
from tune_cropshield.training.run_folder import read_metrics

timm = pytest.importorskip("timm")

HEADS = {
    "timm:resnet10t": "fc",
    "timm:convnext_atto": "head.fc",
    "timm:mobilenetv3_small_050": "classifier",
    "timm:tf_efficientnet_lite0": "classifier",
    "timm:regnetx_002": "head.fc",
    "timm:vit_tiny_patch16_224": "head",
    "timm:resnetv2_50x1_bit": "head.fc",
    "timm:ghostnet_100": "classifier",
}


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))


def run_of(data: DeviceData, model: str, **trial: Any) -> RunConfig:
    settings = {"model": model, "image_size": 32, "lr": 3e-3, "threads": 1, "schedule": "constant"}
    return RunConfig(
        data=DataConfig(dir=str(data.data.store.root)), trial=TrialConfig.model_validate({**settings, **trial})
    )


@pytest.mark.parametrize(("name", "head"), HEADS.items())
def test_a_network_of_timm_has_its_own_head_and_one_output_for_each_class(name: str, head: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 5, freeze_backbone=True, dropout=0.25, image_size=64).train()
    assert head_of(model)[0] == head
    assert model(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2, 5)
    learning = {key.rpartition(".")[0] for key, value in model.named_parameters() if value.requires_grad}
    assert learning == {head}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("timm:convnext_nanoo", "timm has no network 'convnext_nanoo'; did you mean timm:convnext_nano"),
        ("timm:ResNet10t", "did you mean timm:resnet10t\\? "),
        ("timm:", "timm has no network ''"),
        ("timm:resnet10t.c4", "timm has no weights 'c4' of resnet10t: known: timm:resnet10t.c3_in1k"),
        ("timm:hf-hub:timm/resnet10t", "timm has no network 'hf-hub:timm/resnet10t'"),
        ("convnext_nano", "unknown model 'convnext_nano'; did you mean timm:convnext_nano\\? "),
    ],
)
def test_a_name_that_timm_does_not_know_is_told_with_close_ones(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_model_name(name)


def test_a_name_with_a_tag_stands_for_those_weights() -> None:
    assert check_model_name("timm:vit_base_patch16_224.augreg_in21k") == "timm:vit_base_patch16_224.augreg_in21k"


WITHOUT = """
import importlib.machinery as machinery
found = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *rest: None if name == "timm" else found(name, *rest)
from tune_cropshield.config.model_names import check_model_name
try:
    check_model_name("timm:resnet10t")
except ValueError as error:
    print(error)
"""


def test_without_timm_the_command_that_installs_it_is_told() -> None:
    told = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True).stdout
    assert "model 'timm:resnet10t' needs timm:  " in told
    assert "install" in told and "timm>=1.0" in told


def test_a_file_called_timm_is_a_users_own(tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3, num_classes))\n",
        encoding="utf-8",
    )
    name = f"{tmp_path / 'timm.py'}:build"
    assert check_model_name(name) == name
    assert isinstance(build_model(name, 2)[1], nn.Linear)


def test_a_network_that_is_built_for_one_size_is_built_for_that_of_the_trial() -> None:
    check_network(TrialConfig(model="timm:vit_tiny_patch16_224", image_size=48))
    growing = TrialConfig(model="timm:vit_tiny_patch16_224", image_size=64, progressive_sizes={"0": 32, "5": 64})
    with pytest.raises(ConfigError, match="built for one size, leave progressive_sizes out"):
        check_network(growing)


def test_two_heads_are_not_taken_for_one() -> None:
    check_network(TrialConfig(model="timm:deit_tiny_distilled_patch16_224", image_size=32))
    frozen = {"model": "timm:deit_tiny_distilled_patch16_224", "image_size": 32, "freeze_backbone": True}
    with pytest.raises(ConfigError, match=r'say head = "\.\.\."; it could be head, head_dist'):
        check_network(TrialConfig.model_validate(frozen))
    check_network(TrialConfig.model_validate({**frozen, "head": "head"}))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("timm:resnet10t", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("timm:vit_tiny_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("timm:mobilevit_xxs", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_images_are_normalised_as_the_network_wants_them(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert normalisation_of(name) == (mean, std)
    preparation = judged_on(RunConfig(trial=TrialConfig(model=name, image_size=32)))
    assert (preparation.as_dict()["mean"], preparation.as_dict()["std"]) == (list(mean), list(std))
    pictures_BHWC = torch.full((1, 40, 40, 3), 51, dtype=torch.uint8)  # 0.2 of 1
    images_BCHW = preparation.images(pictures_BHWC)
    for colour in range(3):
        expected = (0.2 - mean[colour]) / std[colour]
        assert images_BCHW[0, colour].unique().tolist() == pytest.approx([expected], abs=1e-6)


def test_the_store_does_not_depend_on_the_networks_normalisation() -> None:
    assert judged_on(RunConfig(trial=TrialConfig(model="timm:vit_tiny_patch16_224"))) == Preparation(224)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_a_network_of_timm_is_trained_resumed_used_and_exported(data: DeviceData, tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_trial(run_of(data, name, epochs=2), data, whole, report=lambda report: None)
    run_trial(run_of(data, name, epochs=1), data, cut, report=lambda report: None)
    run_trial(run_of(data, name, epochs=2), data, cut, report=lambda report: None, resume=True)
    losses = [line["train_loss"] for line in read_metrics(whole)]
    assert [line["train_loss"] for line in read_metrics(cut)] == losses
    prepared = json.loads((whole / "preparation.json").read_text(encoding="utf-8"))
    assert prepared["mean"] == ([0.5, 0.5, 0.5] if "vit" in name else [0.485, 0.456, 0.406])
    photographs = sorted(Path(data.data.store.root).glob("*/*"))[:3]
    shares = [sum(one.probabilities.values()) for one in predict(whole, photographs, torch.device("cpu"))]
    assert shares == pytest.approx([1.0, 1.0, 1.0])
    pytest.importorskip("onnxscript")
    assert write_onnx(whole, tmp_path / "model.onnx") < 1e-3

    (whole / "preparation.json").write_text(json.dumps({**prepared, "mean": [0.4, 0.4, 0.4]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"with mean \(0.4, 0.4, 0.4\) and .*, but the timm that is installed has"):
        list(predict(whole, photographs, torch.device("cpu")))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_local_file_are_loaded_by_timms_names(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model("resnet10t", num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save(source.state_dict(), path)
    model = build_model("timm:resnet10t", 3, pretrained=str(path))
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert model.fc.weight.shape == (3, 512)
    same = build_model("timm:resnet10t", 7, pretrained=str(path))
    assert torch.equal(same.fc.weight, source.fc.weight)
    assert "state_dict" not in same.pretrained_cfg


def test_position_embeddings_of_a_local_file_are_brought_to_the_size_of_the_images(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=12)
    save(source.state_dict(), tmp_path / "weights.pth")
    model = build_model("timm:vit_tiny_patch16_224", 4, pretrained=str(tmp_path / "weights.pth"), image_size=64)
    assert model.pos_embed.shape == (1, 1 + 4 * 4, 192)
    assert torch.equal(model.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save(timm.create_model("resnet14t").state_dict(), tmp_path / "weights.pth")
    trial = TrialConfig(model="timm:resnet10t", pretrained=str(tmp_path / "weights.pth"))
    with pytest.raises(ConfigError, match="the weights do not fit timm:resnet10t: "):
        check_pretrained(trial, 3)


def save(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


def test_published_weights_are_looked_for_where_the_hub_keeps_them() -> None:
    assert weights_file("timm:resnet10t").name == "models--timm--resnet10t.c3_in1k"
    assert has_weights("timm:resnet10t")
    assert not has_weights("timm:cspresnet50d")
    with pytest.raises(ValueError, match="timm:cspresnet50d has no published weights"):
        TrialConfig(model="timm:cspresnet50d", pretrained=True)


OFFLINE = """
import torch, timm, sys
from safetensors.torch import save_file
from pathlib import Path
home = Path(sys.argv[1]) / "models--timm--resnet10t.c3_in1k"
(home / "snapshots" / "abc").mkdir(parents=True)
(home / "refs").mkdir()
(home / "refs" / "main").write_text("abc")
source = timm.create_model("resnet10t")
save_file(source.state_dict(), home / "snapshots" / "abc" / "model.safetensors")
from tune_cropshield.training.models import build_model
from tune_cropshield.training.published_weights import weights_can_be_had
assert weights_can_be_had("timm:resnet10t")
model = build_model("timm:resnet10t", 3, pretrained=True)
assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)
try:
    build_model("timm:convnext_atto", 3, pretrained=True)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_published_weights_come_from_the_hubs_folder_and_their_absence_is_told(tmp_path: Path) -> None:
    environment = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "the weights of timm:convnext_atto could not be had (" in done.stdout
    assert 'set pretrained = false, or pretrained = "file" with a local state dict' in done.stdout


def test_a_network_of_timm_is_searched_in_its_familys_ranges_at_its_own_size() -> None:
    scratch = family_of("timm:resnet10t", "cpu", weights=False)
    assert scratch.space == "resnet50_onecycle.toml"
    assert scratch.trial == {"model": "timm:resnet10t", "pretrained": False, "image_size": 176}
    tuned = family_of("timm:convnext_atto", "cuda", weights=True)
    assert tuned.space == "efficientnet_b0.toml"
    assert tuned.trial == {"model": "timm:convnext_atto", "pretrained": True, "image_size": 224}
    assert has_fixed_size("timm:vit_tiny_patch16_224") and not has_fixed_size("timm:convnext_atto")


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_the_memory_of_a_network_of_timm_is_estimated(name: str) -> None:
    estimate = estimate_memory(name, 22, 64, "fp16")
    weights = sum(value.nbytes for value in build_model(name, 22, image_size=64).parameters()) / 2**20
    assert estimate.weights_mib == pytest.approx(weights)
    assert estimate.peak_reserved_mib(64) > estimate.peak_reserved_mib(16) > 3 * weights
