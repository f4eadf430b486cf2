"""TensorBoard: event files read back, and a real TensorBoard asked over HTTP. The trials' files are written as a search
writes them.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard_server import TensorBoard, tensorboard

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.hparams import HParams, setting_name
from tune_cropshield.training.board import GROUP_OF, ScalarEvents, events_folder
from tune_cropshield.training.metrics import METRIC_NAMES, EpochMetrics

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
label_smoothing = 0.1
[space]
lr = {log = [1e-4, 3e-2]}
max_norm = {choice = ["none", 0.5, 1.0]}
warmup_epochs = {uniform = [0.0, 2.0]}
effective_batch = {choice = [16, 128]}
[search]
epochs = 3
"""
ACCURACIES = {0: [0.2, 0.6, 0.5], 1: [0.1], 2: [0.3, 0.2], 3: [0.4]}  # of each epoch of each trial
OUTCOMES = {0: "finished", 1: "pruned", 2: "out of memory"}  # trial 3 was under way when the search was killed
SUCCESS, FAILURE = "STATUS_SUCCESS", "STATUS_FAILURE"


def metrics(epoch: int, val_acc: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        updates=10 * epoch,
        train_loss=3.0 - epoch,
        val_loss=2.0 - val_acc,
        val_acc=val_acc,
        val_macro_f1=val_acc / 2,
        lr=1e-3,
        grad_norm_p50=1.5,
        grad_norm_p95=4.0,
        clip_rate=0.25,
        skipped_steps=0,
        loss_scale=1.0,
        images_per_s=100.0,
        data_wait_s=0.5,
        epoch_s=2.0,
        peak_vram_mib=0.0,
    )


def settings(space: SearchSpace, number: int) -> dict[str, Any]:
    """All settings of a trial, as the search hands them to its worker."""
    searched = {
        "lr": 1e-3 * (number + 1),
        "max_norm": ["none", 0.5, 1.0, "none"][number],
        "warmup_epochs": 0.5,
        "effective_batch": 128,
    }
    trial = space.trial_config({**searched, "micro_batch": 64, "accumulation": 2})
    return {**space.data_config(searched).model_dump(), **trial.model_dump()}


def write_search(out: Path, text: str = SPACE, accuracies: dict[int, list[float]] = ACCURACIES) -> None:
    """Writes the event files of a search whose trials came to these accuracies in each epoch."""
    out.mkdir(exist_ok=True)
    (out / "space.toml").write_text(text)
    space = load_space(out / "space.toml")
    board = HParams(out, space, plan_for_cpu((16, 128)))
    board.search_started()
    for number, reached in accuracies.items():
        board.trial_started(number, settings(space, number))
        events = ScalarEvents(events_folder(out / f"t{number:03d}"))
        best = metrics(1, reached[0]) if reached else None
        for epoch, accuracy in enumerate(reached, 1):
            line = metrics(epoch, accuracy)
            assert best is not None
            best = max(best, line, key=lambda known: known.val_acc)
            events.add(line, best.as_dict())
        events.close()
        if number in OUTCOMES:
            board.trial_ended(number, OUTCOMES[number] if reached else "diverged")
        else:
            # a resumed search starts it again: nothing is written twice
            board.trial_started(number, settings(space, number))


@pytest.fixture(scope="module")
def search_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The event files of a search that was killed while its fourth trial ran."""
    out = tmp_path_factory.mktemp("search")
    write_search(out)
    return out


@pytest.fixture(
    scope="module", params=["--load_fast=true", "--load_fast=false"], ids=["the fast loader", "the Python loader"]
)
def board(search_dir: Path, request: pytest.FixtureRequest) -> Iterator[TensorBoard]:
    """TensorBoard on the search; its two loaders read event files in different ways."""
    with tensorboard(search_dir, request.param) as server:
        server.wait_for_runs(4)
        yield server


def test_tensorboard_runs_without_tensorflow() -> None:
    assert importlib.util.find_spec("tensorflow") is None  # so that the tests below show that none is needed


@pytest.mark.slow
def test_scalars_stand_in_groups_and_runs_say_their_setting(board: TensorBoard) -> None:
    tags = board.get("scalars/tags")

    assert sorted(tags) == [
        "t000/lr0.001_normnone_warmup_epochs0.5_batch128",
        "t001/lr0.002_norm0.5_warmup_epochs0.5_batch128",
        "t002/lr0.003_norm1_warmup_epochs0.5_batch128",
        "t003/lr0.004_normnone_warmup_epochs0.5_batch128",
    ]
    assert sorted(tags["t000/lr0.001_normnone_warmup_epochs0.5_batch128"]) == [
        "clipping/clip_rate",
        "clipping/grad_norm_p50",
        "clipping/grad_norm_p95",
        "search/pruned",
        "speed/data_wait_s",
        "speed/epoch_s",
        "speed/images_per_s",
        "speed/peak_vram_mib",
        "training/best_train_loss",
        "training/loss_scale",
        "training/lr",
        "training/skipped_steps",
        "training/train_loss",
        "training/updates",
        "validation/best_epoch",
        "validation/best_val_acc",
        "validation/best_val_auc",
        "validation/best_val_balanced_acc",
        "validation/best_val_loss",
        "validation/best_val_macro_f1",
        "validation/val_acc",
        "validation/val_auc",
        "validation/val_balanced_acc",
        "validation/val_loss",
        "validation/val_macro_f1",
    ]


def by_number(board: TensorBoard) -> dict[str, dict[str, Any]]:
    """The rows of the HParams tab by the first part of their names, t000 and so on."""
    return {name.split("/")[0]: trial for name, trial in board.trials().items()}


def test_the_first_metric_of_the_tab_is_the_accuracy(board: TensorBoard) -> None:
    shown = [info["name"]["tag"] for info in board.post("hparams/experiment", includeMetrics=True)["metricInfos"]]

    assert shown[:3] == ["validation/val_acc", "validation/best_val_acc", "validation/best_epoch"]


def test_the_tab_knows_ranges_choices_with_none_and_constants(board: TensorBoard) -> None:
    shown = board.post("hparams/experiment")["hparamInfos"]
    parameters = {info["name"]: info for info in shown}

    differing = ["accumulation", "effective_batch", "lr", "max_norm", "micro_batch", "warmup_epochs"]
    assert [info["name"] for info in shown][:6] == differing  # first: only the first few columns are shown unasked
    assert parameters["lr"]["domainInterval"] == {"minValue": 1e-4, "maxValue": 3e-2}
    assert parameters["warmup_epochs"]["domainInterval"] == {"minValue": 0.0, "maxValue": 2.0}
    assert (parameters["max_norm"]["type"], parameters["max_norm"]["domainDiscrete"]) == (
        "DATA_TYPE_STRING",
        ["0.5", "1.0", "none"],
    )
    assert parameters["effective_batch"]["domainDiscrete"] == [16.0, 128.0]
    assert parameters["micro_batch"]["domainDiscrete"] == [16.0, 64.0]
    assert parameters["accumulation"]["domainDiscrete"] == [1.0, 2.0]
    assert parameters["model"]["domainDiscrete"] == ["tiny_cnn"]
    assert parameters["label_smoothing"]["domainDiscrete"] == [0.1]


def test_every_trial_is_there_with_every_parameter_also_the_one_that_was_killed(board: TensorBoard) -> None:
    names = {info["name"] for info in board.post("hparams/experiment")["hparamInfos"]}
    trials = by_number(board)

    assert sorted(trials) == ["t000", "t001", "t002", "t003"]
    assert all(set(trial["hparams"]) == names for trial in trials.values())
    assert trials["t001"]["hparams"]["lr"] == 2e-3
    assert [trials[name]["hparams"]["max_norm"] for name in sorted(trials)] == ["none", "0.5", "1.0", "none"]
    assert (trials["t003"]["hparams"]["micro_batch"], trials["t003"]["hparams"]["accumulation"]) == (64.0, 2.0)
    assert trials["t003"]["hparams"]["label_smoothing"] == 0.1


def test_every_trial_has_its_true_state(board: TensorBoard) -> None:
    trials = by_number(board)

    assert {name: (trial["status"], trial["metrics"].get("search/pruned")) for name, trial in trials.items()} == {
        "t000": (SUCCESS, 0.0),
        "t001": (SUCCESS, 1.0),
        "t002": (FAILURE, 0.0),
        "t003": ("STATUS_UNKNOWN", None),
    }


def test_the_metrics_are_those_of_the_best_epoch(board: TensorBoard) -> None:
    shown = by_number(board)["t000"]["metrics"]

    assert shown["validation/best_val_acc"] == pytest.approx(0.6)
    assert shown["validation/best_epoch"] == 2.0
    assert shown["validation/best_val_loss"] == pytest.approx(1.4)
    assert shown["validation/best_val_macro_f1"] == pytest.approx(0.3)
    assert shown["training/best_train_loss"] == pytest.approx(1.0)
    assert shown["validation/val_acc"] == pytest.approx(0.5)


def test_a_trial_can_be_seen_before_its_first_epoch_and_each_epoch_at_once(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    space = load_space(tmp_path / "space.toml")
    board = HParams(tmp_path, space, plan_for_cpu((16, 128)))
    board.search_started()
    board.trial_started(0, settings(space, 0))
    written = EventAccumulator(str(events_folder(tmp_path / "t000")))
    written.Reload()
    assert written.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"

    events = ScalarEvents(events_folder(tmp_path / "t000"))
    for epoch, accuracy in [(1, 0.25), (2, 0.75), (3, 0.5)]:
        events.add(metrics(epoch, accuracy), metrics(min(epoch, 2), 0.25 if epoch == 1 else 0.75).as_dict())
        written = EventAccumulator(str(events_folder(tmp_path / "t000")))
        written.Reload()
        assert [point.step for point in written.Scalars("validation/val_acc")] == list(range(1, epoch + 1))
    assert [point.value for point in written.Scalars("validation/best_val_acc")] == [0.25, 0.75, 0.75]
    assert [point.value for point in written.Scalars("validation/best_epoch")] == [1.0, 2.0, 2.0]
    events.close()


def test_a_trial_that_is_gone_on_with_a_dozen_times_within_a_second_shows_all_its_epochs(tmp_path: Path) -> None:
    for epoch in range(1, 13):
        with closing(ScalarEvents(tmp_path, epoch)) as events:
            events.add(metrics(epoch, epoch / 100), metrics(epoch, epoch / 100).as_dict())

    written = EventAccumulator(str(tmp_path))
    written.Reload()
    shown = [(point.step, round(point.value, 2)) for point in written.Scalars("validation/val_acc")]
    assert shown == [(epoch, epoch / 100) for epoch in range(1, 13)]


def test_a_clock_that_was_set_back_does_not_put_later_epochs_first(tmp_path: Path) -> None:
    tomorrow = int(time.time()) + 86_400
    with closing(ScalarEvents(tmp_path)) as events:
        events.add(metrics(1, 0.25), metrics(1, 0.25).as_dict())
    (written,) = tmp_path.iterdir()
    written.rename(tmp_path / f"events.out.tfevents.{tomorrow}.host.1.0")
    with closing(ScalarEvents(tmp_path, 2)) as events:
        events.add(metrics(2, 0.5), metrics(2, 0.5).as_dict())

    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert [(point.step, point.value) for point in shown.Scalars("validation/val_acc")] == [(1, 0.25), (2, 0.5)]


def test_an_open_tensorboard_sees_the_epochs_of_a_trial_that_goes_on_after_it_was_stopped(
    tmp_path: Path,
) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    space = load_space(tmp_path / "space.toml")
    board = HParams(tmp_path, space, plan_for_cpu((16, 128)))
    board.trial_started(0, settings(space, 0))
    folder = events_folder(tmp_path / "t000")
    with closing(ScalarEvents(folder)) as events:
        events.add(metrics(1, 0.25), metrics(1, 0.25).as_dict())
    board.trial_stopped(0)
    opened = EventAccumulator(str(folder))
    opened.Reload()
    assert [point.value for point in opened.Scalars("search/pruned")] == [1.0]

    board.trial_started(0, settings(space, 0))
    opened.Reload()
    assert [point.value for point in opened.Scalars("search/pruned")][-1] == 0.0
    with closing(ScalarEvents(folder, 2)) as events:
        events.add(metrics(2, 0.5), metrics(2, 0.5).as_dict())
    board.trial_ended(0, "finished")
    opened.Reload()

    assert [point.step for point in opened.Scalars("validation/val_acc")] == [1, 2]
    assert [point.value for point in opened.Scalars("search/pruned")][-1] == 0.0
    assert len(list(folder.glob("*.end.hparams"))) == 1
    board.trial_ended(0, "finished")  # a resumed search tells again what has ended
    assert len(list(folder.glob("*.end.hparams"))) == 1


def test_searched_pairs_are_a_column_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE + 'pairs = "all"\n')
    space = load_space(tmp_path / "space.toml")
    HParams(tmp_path, space, plan_for_cpu((16, 128))).trial_started(0, settings(space, 0))
    written = EventAccumulator(str(events_folder(tmp_path / "t000")))
    written.Reload()
    content = written.SummaryMetadata("_hparams_/session_start_info").plugin_data.content

    assert b"pair" in content and b"64x2" in content


DIVERGING = """
[trial]
model = "tiny_cnn"
image_size = 32
optimizer = "sgd"
[space]
lr = {log = [1e8, 1e12]}
agc = {choice = ["none", 0.01]}
effective_batch = {choice = [16, 128]}
[search]
epochs = 3
"""


@pytest.mark.parametrize("loader", ["--load_fast=true", "--load_fast=false"])
def test_two_searches_shown_together_have_a_row_for_each_trial_with_its_own_numbers(
    tmp_path: Path, loader: str
) -> None:
    write_search(tmp_path / "one", accuracies={0: [0.2, 0.6], 1: [0.1]})
    write_search(tmp_path / "two", DIVERGING, accuracies={0: [0.5], 1: [], 2: []})  # two ended before an epoch

    with tensorboard(tmp_path, loader) as board:
        board.wait_for_runs(5)
        deadline = time.monotonic() + 20
        while len(board.trials()) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        trials = board.trials()
        columns = {info["name"] for info in board.post("hparams/experiment")["hparamInfos"]}

    accuracy = {name: trial["metrics"].get("validation/best_val_acc") for name, trial in trials.items()}
    assert accuracy == {
        "one/t000/lr0.001_normnone_warmup_epochs0.5_batch128": pytest.approx(0.6),
        "one/t001/lr0.002_norm0.5_warmup_epochs0.5_batch128": pytest.approx(0.1),
        "two/t000/lr0.001_agcnone_batch128": pytest.approx(0.5),
        "two/t001/lr0.002_agcnone_batch128": None,
        "two/t002/lr0.003_agcnone_batch128": None,
    }
    assert [trial["status"] for name, trial in sorted(trials.items())] == [SUCCESS, SUCCESS, SUCCESS, FAILURE, FAILURE]
    assert {"lr", "max_norm", "agc", "warmup_epochs", "effective_batch"} <= columns  # of both


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"lr": 3e-4, "max_norm": 1.0, "effective_batch": 64}, "lr3e-4_norm1_batch64"),
        ({"lr": 0.00496, "weight_decay": 2.04e-05, "max_norm": "none"}, "lr0.00496_wd2.04e-5_normnone"),
        ({"lr": 1e12, "pair": "16x2"}, "lr1e12_16x2"),
        ({"ema": 0.0, "mixup": 0.25, "augment": "none"}, "ema0_mixup0.25_augmentnone"),
        ({"loss": "C:\\my parts\\own.py:Focal", "optimizer": "../own.py:fast"}, "lossFocal_optimizerfast"),
        ({"model": "a/b:c d*?"}, "modelc-d--"),
        ({}, "setting"),
        (
            {"lr": 1e-3, "label_smoothing": 0.123, "warmup_epochs": 0.123, "plateau_factor": 0.5, "momentum": 0.9},
            "lr0.001_smooth0.123_warmup_epochs0.123",
        ),
        (
            {"lr": 1e-3, "unfreeze_epochs": 2, "backbone_lr_factor": 0.1234, "layer_decay": 0.75},
            "lr0.001_frozen2_backbone0.123_decay0.75",
        ),
        (
            {"loss": "focal", "focal_gamma": 1.5, "class_weights": "balanced"},
            "lossfocal_gamma1.5_weightsbalanced",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_is_named_after_the_setting(parameters: dict[str, Any], name: str) -> None:
    assert setting_name(parameters) == name
    assert len(name) <= 48


def test_a_trial_of_several_networks_is_called_by_its_learning_rate_first(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(
        """
        [space]
        model = {choice = ["tiny_cnn", "resnet18"]}
        image_size = {choice = [32, 40]}
        optimizer = {choice = ["adamw", "sgd"]}
        effective_batch = {choice = [16, 32]}
        [space.when.optimizer.adamw]
        lr = {log = [3e-4, 3e-2]}
        [space.when.optimizer.sgd]
        lr = {log = [3e-3, 1.0]}
        """
    )
    space = load_space(tmp_path / "space.toml")
    hparams = HParams(tmp_path, space, plan_for_cpu((16, 32)))
    values = {"model": "tiny_cnn", "image_size": 40, "optimizer": "adamw", "lr": 3.81e-4, "effective_batch": 16}
    settings = space.trial_config().model_dump() | values | {"micro_batch": 16, "accumulation": 1}
    hparams.trial_started(0, {**space.data.model_dump(), **settings})
    assert events_folder(tmp_path / "t000").name == "lr3.81e-4_modeltiny_cnn_px40_optimizeradamw"


def test_every_metric_has_a_group() -> None:
    assert set(GROUP_OF) == {*METRIC_NAMES} - {"epoch"}


def test_a_search_of_an_earlier_version_goes_on_where_its_events_lie(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    space = load_space(tmp_path / "space.toml")
    old = tmp_path / "t000" / "events.out.tfevents.0000000000.hparams"
    old.parent.mkdir()
    old.write_bytes(b"as it was")

    board = HParams(tmp_path, space, plan_for_cpu((16, 128)))
    board.trial_started(0, settings(space, 0))
    board.trial_ended(0, "finished")

    assert old.read_bytes() == b"as it was"
    first, end = sorted(path.name for path in old.parent.iterdir())
    assert first == old.name
    assert end.endswith(".end.hparams")
