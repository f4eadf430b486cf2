"""A user's own network, loss, optimizer and schedule, named in a settings file as file.py:name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config import registry
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config, save_config
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.mixing import Targets
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.losses import CrossEntropy
from tune_cropshield.training.model_checks import check_network
from tune_cropshield.training.models import build_model
from tune_cropshield.training.run_folder import read_metrics

OWN = '''
import torch
from torch import nn
from torch.nn import functional as F
from tune_cropshield.training.losses import SampleLoss

class Focal(SampleLoss):
    """Lin et al., https://arxiv.org/abs/1708.02002, gamma = 2."""
    def per_sample(self, logits_BK, labels_B):
        loss_B = F.cross_entropy(logits_BK, labels_B, self.class_weights_K, reduction="none")
        right_B = logits_BK.softmax(1).gather(1, labels_B[:, None])[:, 0]
        return (1 - right_B) ** 2 * loss_B

class SameAsOurs(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return F.cross_entropy(logits_BK, labels_B, reduction="none")

def nadam(groups, lr, momentum):
    return torch.optim.NAdam(groups, lr=lr, foreach=False)

def plain_sgd(groups, lr, momentum):
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, foreach=False)

def half(update, times):
    return 1.0 if update < times.total // 2 else 0.5

class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.features(images))

class Pair(Small):
    def forward(self, images):
        return self.head(self.features(images)), None

number = 3
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {16, 32}, shared_cache), torch.device("cpu"))


def trained(data: DeviceData, folder: Path, **trial: Any) -> list[dict[str, Any]]:
    settings = {"model": "tiny_cnn", "image_size": 32, "lr": 5e-3, "threads": 1, "epochs": 2, "schedule": "constant"}
    config = RunConfig(trial=TrialConfig.model_validate({**settings, **trial}))
    run_trial(config, data, folder, report=lambda report: None)
    return read_metrics(folder)


def test_a_network_of_ones_own_is_trained_and_read_back(own: Path, data: DeviceData, tmp_path: Path) -> None:
    lines = trained(data, tmp_path / "run", model=f"{own}:Small", dropout=0.1)
    assert lines[1]["train_loss"] < lines[0]["train_loss"]
    again = load_config(tmp_path / "run" / "config.toml")
    assert again.trial.model == f"{own}:Small"
    assert sum(value.numel() for value in build_model(again.trial.model, 4).parameters()) == 3 * 9 * 8 + 8 + 8 * 4 + 4


def test_a_loss_of_ones_own_is_trained_by(own: Path, data: DeviceData, tmp_path: Path) -> None:
    ours = trained(data, tmp_path / "ours", augment="none")
    same = trained(data, tmp_path / "same", augment="none", loss=f"{own}:SameAsOurs")
    focal = trained(data, tmp_path / "focal", augment="none", loss=f"{own}:Focal")
    assert same[0]["train_loss"] == pytest.approx(ours[0]["train_loss"], rel=1e-5)
    assert focal[0]["train_loss"] < 0.8 * ours[0]["train_loss"]  # (1 - p)^2 is less than 1


def test_an_own_losss_class_weights_and_mixed_targets_are_counted_as_ours(own: Path) -> None:
    torch.manual_seed(0)
    weights, logits = torch.tensor([1.0, 2.0, 0.5]), torch.randn(4, 3)
    targets = Targets(torch.tensor([0, 1, 2, 1]), torch.tensor([1, 0, 1, 2]), torch.tensor([0.7, 0.7, 0.2, 0.2]))
    focal = registry.resolve("loss", f"{own}:Focal")(weights, 0.0)
    own_B, partner_B = (
        (1 - logits.softmax(1)[range(4), labels]) ** 2 * F.cross_entropy(logits, labels, weights, reduction="none")
        for labels in (targets.labels_B, targets.partner_labels_B)
    )
    assert targets.share_B is not None
    expected = (targets.share_B * own_B + (1 - targets.share_B) * partner_B).sum()
    torch.testing.assert_close(focal.sum(logits, targets), expected)
    torch.testing.assert_close(focal.weight(targets), CrossEntropy(weights).weight(targets))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_optimizer_of_ones_own_trains_in_every_precision(
    own: Path, data: DeviceData, tmp_path: Path, precision: str
) -> None:
    lines = trained(
        data, tmp_path / "run", optimizer=f"{own}:nadam", precision=precision, lr=1e-3, image_size=16, epochs=4
    )
    assert lines[3]["train_loss"] < lines[0]["train_loss"]


def test_an_optimizer_that_is_not_fused_gives_the_numbers_of_the_fused_one(
    own: Path, data: DeviceData, tmp_path: Path
) -> None:
    fused = trained(data, tmp_path / "fused", optimizer="sgd", weight_decay=0.0, momentum=0.5)
    plain = trained(data, tmp_path / "plain", optimizer=f"{own}:plain_sgd", weight_decay=0.0, momentum=0.5)
    assert [line["train_loss"] for line in plain] == pytest.approx([line["train_loss"] for line in fused], rel=1e-4)


def test_a_schedule_of_ones_own_sets_the_rate_of_every_update(own: Path, data: DeviceData, tmp_path: Path) -> None:
    lines = trained(data, tmp_path / "run", schedule=f"{own}:half")
    assert [line["lr"] for line in lines] == pytest.approx([5e-3, 2.5e-3])


def test_a_relative_file_is_kept_with_its_whole_path(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_config(RunConfig(trial=TrialConfig(model="own.py:Small")), tmp_path / "config.toml")
    monkeypatch.chdir("/")
    assert load_config(tmp_path / "config.toml").trial.model == f"{own}:Small"


def test_a_module_is_found_in_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_a_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert isinstance(build_model(TrialConfig(model="mine_for_a_test:Small").model, 3), nn.Module)


@pytest.mark.parametrize(
    ("field", "name", "message"),
    [
        ("loss", "focl", "no loss is called 'focl'; did you mean focal? Known: cross_entropy, focal, bi_tempered"),
        ("optimizer", "adam", "no optimizer is called 'adam'; did you mean adamw? Known: adamw, sgd"),
        ("schedule", "own.py:half", "own.py cannot be read: No such file or directory"),
        ("schedule", "{own}:thirds", "own.py defines no thirds"),
        ("loss", "no_such_module:Loss", "'no_such_module': there is no module of this name"),
        ("model", "{own}:", "write file.py:name or package.module:name"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_before_anything_runs(own: Path, field: str, name: str, message: str) -> None:
    with pytest.raises(ValueError) as told:
        TrialConfig.model_validate({field: name.format(own=own)})
    assert message in str(told.value)


def test_a_network_that_gives_no_logits_is_told_before_anything_is_decoded(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"it gives tuple for 2 images and 2 classes, not logits \(2, 2\)"):
        check_network(TrialConfig(model=f"{own}:Pair", image_size=32))


def test_code_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "def net(num_classes):\n    pass\nraise OSError('no licence')\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"cannot be loaded: OSError: no licence"):
        build_model(f"{tmp_path / 'broken.py'}:net", 3)


def test_every_name_in_the_registries_of_training_leads_somewhere() -> None:
    for kind in ("model", "loss", "optimizer", "schedule"):
        for name in registry.REGISTRIES[kind]:
            assert callable(registry.resolve(kind, name)), (kind, name)


def test_another_file_of_the_same_name_is_told_apart(own: Path) -> None:
    before = registry.source_digest(f"{own}:Small")
    own.write_text(OWN + "\n# changed\n", encoding="utf-8")
    assert registry.source_digest(f"{own}:Small") != before
    assert registry.source_digest("tiny_cnn") is None


DRAWING = """
import random
import numpy as np
from torch import nn
from tune_cropshield.training.cnn import tiny_cnn

class Drawing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network, self.scale = tiny_cnn(num_classes), float(np.random.rand())

    def forward(self, images):
        return self.network(images) * self.scale * (0.5 + random.random() if self.training else 1.0)
"""


def test_a_network_that_draws_from_numpy_and_python_is_trained_alike_whatever_ran_before(
    data: DeviceData, tmp_path: Path
) -> None:
    (tmp_path / "drawing.py").write_text(DRAWING, encoding="utf-8")
    model = f"{tmp_path / 'drawing.py'}:Drawing"
    runs = [trained(data, tmp_path / str(number), model=model, epochs=1)[0] for number in range(2)]
    assert runs[0]["train_loss"] == runs[1]["train_loss"]
    assert runs[0]["val_loss"] == runs[1]["val_loss"]
    other = trained(data, tmp_path / "other", model=model, epochs=1, seed=1)[0]
    assert other["val_loss"] != runs[0]["val_loss"]
