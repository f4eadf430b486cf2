"""A search's winners trained again over seeds: which, how, resumed, and what is said of them. Trainings here are two
epochs of a tiny network.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tune_cropshield.api.doctor import chosen_photographs
from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config, save_config
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.split_file import write_split
from tune_cropshield.data.windows import epoch_order
from tune_cropshield.device import cpu_name
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.conclusion import conclusion, conclusion_lines, judge, read_conclusion
from tune_cropshield.outcome.confirm import (
    Candidate,
    Conditions,
    ConfirmedRun,
    candidates,
    confirm,
    fresh_seeds,
    read_table,
    run_folder,
    under_other_conditions,
)
from tune_cropshield.outcome.export import exported
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.search.journal import open_study, read_study
from tune_cropshield.training.run_folder import read_metrics

RATES = FloatDistribution(1e-6, 1e31, log=True)
TRIAL: dict[str, Any] = {
    "model": "tiny_cnn",
    "image_size": 32,
    "augment": "none",
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "epochs": 2,
}
SPACE = '[trial]\nmodel = "tiny_cnn"\nimage_size = 32\n[search]\nepochs = 2\n[space]\nlr = {log = [1e-6, 1e-1]}\n'


def add_trial(study: optuna.Study, folder: Path, data: str, best: float, lr: float, **trial: Any) -> None:
    state = TrialState.COMPLETE
    values = {1: best / 2, 2: best}
    study.add_trial(
        optuna.trial.create_trial(
            params={"lr": lr}, distributions={"lr": RATES}, value=best, intermediate_values=values, state=state
        )
    )
    run_dir = folder / f"t{len(study.trials) - 1:03d}"
    run_dir.mkdir()
    save_config(
        RunConfig(data=DataConfig(dir=data), trial=TrialConfig(**{**TRIAL, "lr": lr, "threads": 1, **trial})),
        run_dir / "config.toml",
    )


@pytest.fixture
def make_search(tmp_path: Path, drawn_leaves: Path) -> Callable[..., Path]:
    """Writes a search as a real one leaves it: trial 0 and one trial per further (best val_acc, lr)."""

    def make(*others: tuple[float, float], name: str = "search", **trial: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        study = open_study(folder)
        add_trial(study, folder, str(drawn_leaves), 0.30, 1e-4, **trial)
        for best, lr in others:
            add_trial(study, folder, str(drawn_leaves), best, lr, **trial)
        (folder / "search.toml").write_text(
            '[trial]\nmodel = "tiny_cnn"\nimage_size = 32\n[search]\nepochs = 2\n[space]\nlr = {log = [1e-6, 1e-1]}\n'
        )
        return folder

    return make


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))


def rows(search_dir: Path) -> list[dict[str, str]]:
    with open(search_dir / "confirm.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def silent(candidate: Candidate, seed: int) -> Callable[[object], object]:
    return lambda report: None


def run(trial: int, seed: int, value: float | None, outcome: str = "finished") -> ConfirmedRun:
    return ConfirmedRun(
        trial,
        seed,
        outcome,
        value,
        2,
        value,
        1.0,
        2,
        f"confirm/t{trial:03d}-s{seed}",
        "" if outcome == "finished" else "too hot",
    )


def chosen(*searched: float) -> list[Candidate]:
    return [Candidate(number, RunConfig(), value) for number, value in enumerate(searched)]


def judged_from(
    *accuracies: list[float], searched: tuple[float, ...] = (0.5, 0.6, 0.55), num_judged: int = 1000
) -> str:
    """The conclusion on the accuracies of the reference setting and of the others, one per seed."""
    runs = [run(trial, seed, value) for trial, values in enumerate(accuracies) for seed, value in enumerate(values, 1)]
    return conclusion(judge(chosen(*searched[: len(accuracies)]), runs, num_judged))


def test_the_reference_and_the_best_others_are_chosen_and_equal_settings_once(make_search: Callable[..., Path]) -> None:
    folder = make_search((0.5, 1e-3), (0.7, 2e-3), (0.7, 2e-3), (0.6, 3e-3), (0.4, 1e-4))

    found = candidates(folder, read_study(folder), top=2)

    assert [(candidate.trial, candidate.config.trial.lr, candidate.searched) for candidate in found] == [
        (0, 1e-4, 0.3),
        (2, 2e-3, 0.7),
        (4, 3e-3, 0.6),
    ]
    assert fresh_seeds(found[0], 3) == [1, 2, 3]  # the search's own is 0


def test_the_photographs_are_looked_for_where_the_search_was_gone_on_with_last(
    make_search: Callable[..., Path], drawn_leaves: Path, home: Path
) -> None:
    folder = make_search((0.5, 1e-3))
    moved = home / "moved"
    (folder / "search.toml").write_text(f"{SPACE}[data]\ndir = '{moved}'\n")

    assert [each.config.data.dir for each in candidates(folder, read_study(folder), 3)] == [str(moved)] * 2
    assert f'dir = "{moved}"' in exported(folder / "t000", "toml")[1]
    assert chosen_photographs({}, folder / "t000" / "config.toml", None)[0].dir == str(moved)

    again = shutil.copytree(folder / "t000", folder / "retrained")  # it may have been trained on others
    assert read_config(again).data.dir == str(drawn_leaves)


def test_a_search_of_the_reference_alone_has_nothing_to_confirm(make_search: Callable[..., Path]) -> None:
    folder = make_search()

    with pytest.raises(UserError, match="has no trial with a result besides the reference setting"):
        candidates(folder, read_study(folder), top=3)


@pytest.mark.slow
def test_confirm_trains_all_writes_its_files_and_the_same_command_again_trains_nothing(
    make_search: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_search((0.5, 5e-3), (0.4, 1e-3))

    assert main(["confirm", str(folder), "--top", "1", "--seeds", "2", "--device", "cpu"]) == 0

    told = capsys.readouterr().out.splitlines()
    assert (
        "4 runs of 2 epochs on cpu: the reference setting and t001, each with the seeds 1, 2; the same split for "
        "all, 12 validation photographs"
    ) in told
    assert told[-1].startswith("conclusion: ")
    assert [(row["trial"], row["seed"], row["outcome"], row["epochs"]) for row in rows(folder)] == [
        ("0", "1", "finished", "2"),
        ("0", "2", "finished", "2"),
        ("1", "1", "finished", "2"),
        ("1", "2", "finished", "2"),
    ]
    for row in rows(folder):
        lines = read_metrics(folder / row["folder"])
        assert float(row["best_val_acc"]) == max(line["val_acc"] for line in lines)
        assert not (folder / row["folder"] / "last.pt").exists()  # nothing is left to go on with
    content = json.loads((folder / "confirm.json").read_text())
    assert content["seeds"] == [1, 2]
    assert content["conclusion"] == told[-1].removeprefix("conclusion: ")
    means = [sum(float(row["best_val_acc"]) for row in rows(folder) if row["trial"] == trial) / 2 for trial in "01"]
    assert [content["reference"]["mean"], content["candidates"][0]["mean"]] == pytest.approx(means)
    assert content["candidates"][0]["against_reference"]["gain"] == pytest.approx(means[1] - means[0])

    text = (folder / "confirm.json").read_text()
    for now, earlier in (("conclusion", "verdict"), ("against_reference", "against_guide"), ("reference", "guide")):
        text = text.replace(f'"{now}"', f'"{earlier}"')
    (home / "confirm.json").write_text(text)
    earlier_one = read_conclusion(home)
    assert earlier_one is not None
    assert earlier_one["conclusion"] == content["conclusion"]
    assert earlier_one["reference"]["mean"] == content["reference"]["mean"]
    assert earlier_one["candidates"][0]["against_reference"] == content["candidates"][0]["against_reference"]

    trained = {path: path.stat().st_mtime_ns for path in folder.glob("confirm/*/*")}
    assert main(["confirm", str(folder), "--top", "1", "--seeds", "2", "--device", "cpu"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("confirm/*/*")} == trained
    assert capsys.readouterr().out.splitlines()[-1] == told[-1]


@pytest.mark.slow
def test_runs_differ_in_nothing_but_the_seed(make_search: Callable[..., Path], data: DeviceData) -> None:
    folder = make_search((0.5, 5e-3), augment="moderate")
    found = candidates(folder, read_study(folder), top=1)

    list(confirm(folder, found, [1, 2], 1, data, silent))

    first, second = (load_config(folder / "confirm" / f"t001-s{seed}" / "config.toml") for seed in (1, 2))
    assert (first.trial.seed, second.trial.seed) == (1, 2)
    assert first.trial.model_copy(update={"seed": 0}) == second.trial.model_copy(update={"seed": 0})
    assert first.data == second.data == found[1].config.data  # and with it the split
    indices = data.indices("train")
    assert not torch.equal(epoch_order(indices, 1, 0), epoch_order(indices, 2, 0))
    lines = [read_metrics(folder / "confirm" / f"t001-s{seed}")[0]["train_loss"] for seed in (1, 2)]
    assert lines[0] != lines[1]


@pytest.mark.slow
def test_a_confirmation_stopped_in_the_middle_of_a_run_goes_on_to_the_same_table(
    make_search: Callable[..., Path], data: DeviceData
) -> None:
    whole, parts = make_search((0.5, 5e-3), name="whole"), make_search((0.5, 5e-3), name="parts")
    list(confirm(whole, candidates(whole, read_study(whole), 1), [1, 2], 1, data, silent))
    begun: list[tuple[int, int]] = []

    def stopped_in_the_third(candidate: Candidate, seed: int) -> Callable[[object], object]:
        begun.append((candidate.trial, seed))

        def report(done: object) -> None:
            if len(begun) == 3:
                raise KeyboardInterrupt

        return report

    found = candidates(parts, read_study(parts), 1)
    with pytest.raises(KeyboardInterrupt):
        list(confirm(parts, found, [1, 2], 1, data, stopped_in_the_third))
    assert begun == [(0, 1), (1, 1), (0, 2)]  # seed by seed
    assert len(read_table(parts)) == 2
    runs = list(confirm(parts, found, [1, 2], 1, data, stopped_in_the_third))

    assert begun[3:] == [(0, 2), (1, 2)]  # what was done is not done again
    assert len(runs) == 4
    assert (parts / "confirm.csv").read_bytes() == (whole / "confirm.csv").read_bytes()


@pytest.mark.slow
def test_a_run_that_diverges_is_an_outcome_and_is_told(make_search: Callable[..., Path], data: DeviceData) -> None:
    folder = make_search((0.5, 1e30), optimizer="sgd")
    found = candidates(folder, read_study(folder), 1)

    runs = list(confirm(folder, found, [1, 2], 1, data, silent))

    assert [(each.trial, each.outcome) for each in runs] == [
        (0, "finished"),
        (1, "diverged"),
        (0, "finished"),
        (1, "diverged"),
    ]
    assert read_table(folder) == sorted(runs, key=lambda each: (each.trial, each.seed))
    judged = judge(found, runs, 12)
    assert conclusion(judged) == (
        "conclusion: none, because no candidate and the reference setting were both trained to the end with the "
        "same two seeds"
    )
    assert any(line.startswith("    seed 1: diverged (") for line in conclusion_lines(judged, 12))


@pytest.mark.slow
def test_runs_on_another_device_or_thread_count_are_kept_apart_and_not_counted(
    make_search: Callable[..., Path], home: Path, data: DeviceData, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_search((0.5, 5e-3))
    found = candidates(folder, read_study(folder), 1)
    list(confirm(folder, found, [1], 7, data, silent))  # as if begun with another number of threads
    table = rows(folder)
    for row in table[:1]:
        row["device"] = "NVIDIA H200"  # and one on another device
    with open(folder / "confirm.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)

    assert main(["confirm", str(folder), "--top", "1", "--seeds", "2", "--device", "cpu"]) == 0

    told = capsys.readouterr().out
    assert "confirm.csv holds 1 run under other conditions, which do not count here: NVIDIA H200, 7 threads" in told
    assert f"which do not count here: {cpu_name()}, 7 threads, torch {torch.__version__}, photographs " in told
    assert "4 of 4 runs" in told  # none was taken over
    assert [(row["trial"], row["seed"], row["threads"] == "7", row["folder"]) for row in rows(folder)] == [
        ("0", "1", True, "confirm/t000-s1"),
        ("0", "1", False, "confirm/t000-s1-2"),
        ("0", "2", False, "confirm/t000-s2"),
        ("1", "1", True, "confirm/t001-s1"),
        ("1", "1", False, "confirm/t001-s1-2"),
        ("1", "2", False, "confirm/t001-s2"),
    ]
    content = json.loads((folder / "confirm.json").read_text())
    assert content["conditions"]["device"] == cpu_name() != ""
    assert content["conditions"]["threads"] == int(rows(folder)[1]["threads"])
    assert [run["conditions"]["threads"] for run in content["reference"]["runs"]] == [
        int(rows(folder)[1]["threads"])
    ] * 2


def test_a_table_of_an_earlier_version_is_read_but_none_of_its_runs_counts(tmp_path: Path) -> None:
    (tmp_path / "confirm.csv").write_text(
        "trial,seed,outcome,best_val_acc,best_epoch,val_macro_f1,val_loss,epochs,folder,reason\n"
        "0,1,finished,0.5,2,0.5,1.0,2,confirm/t000-s1,\n"
    )

    (earlier,) = read_table(tmp_path)

    assert earlier.conditions == Conditions()
    now = Conditions("cpu", 1, "2.15.0", "0123")
    assert under_other_conditions([earlier], now) == {Conditions(): 1}
    assert str(Conditions()) == "conditions that were not recorded"
    (tmp_path / "confirm" / "t000-s1").mkdir(parents=True)  # of that version: it says nothing of its conditions
    assert run_folder(tmp_path, 0, 1, now) == Path("confirm/t000-s1-2")
    assert run_folder(tmp_path, 0, 2, now) == Path("confirm/t000-s2")


def test_another_torch_and_other_photographs_are_other_conditions() -> None:
    now = Conditions("cpu", 1, "2.15.0", "0123")
    runs = [
        ConfirmedRun(0, 1, "finished", 0.5, 2, 0.5, 1.0, 2, "confirm/t000-s1", "", conditions)
        for conditions in (now, replace(now, torch="2.14.0"), replace(now, photographs="4567"))
    ]

    assert list(under_other_conditions(runs, now).values()) == [1, 1]


def test_photographs_that_have_changed_since_the_search_are_told_in_numbers(
    make_search: Callable[..., Path], drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_search((0.5, 1e-3))
    write_split(folder, open_data(DataConfig(dir=str(drawn_leaves)), {32}, home / "cache"))
    changed = shutil.copytree(drawn_leaves, home / "changed")
    first, second, *_ = sorted((changed / "rust").iterdir())
    shutil.copy(first, second)  # one photograph is gone, another is there twice

    assert main(["confirm", str(folder), "--device", "cpu", "--data", str(changed)]) == 2

    error = capsys.readouterr().err
    assert f"the photographs in {changed} are not those that {folder} was searched on: " in error
    assert " of 120 are missing or in another part of the split, " in error
    assert not (folder / "confirm").exists()


def test_a_large_steady_gain_is_called_better() -> None:
    assert judged_from([0.500, 0.510, 0.505], [0.600, 0.612, 0.604]) == (
        "conclusion: t001 is better than the reference setting (+10.0 points of val_acc, 95 % interval +9.7 to +10.4, "
        "p = 7.7e-05). In the search the difference was +10.0."
    )


def test_how_long_a_trial_was_trained_that_the_search_stopped_early_is_known(make_search: Callable[..., Path]) -> None:
    folder = make_search((0.5, 1e-3))
    study = open_study(folder)
    early = study.ask()
    early.report(0.4, 1)
    early.report(0.6, 2)
    study.tell(early, state=optuna.trial.TrialState.PRUNED)
    shutil.copytree(folder / "t001", folder / "t002")
    (folder / "t002" / "config.toml").write_text(
        (folder / "t001" / "config.toml").read_text().replace("0.001", "0.002")
    )

    found = candidates(folder, read_study(folder), top=2)

    assert [(candidate.trial, candidate.pruned_after) for candidate in found] == [(0, None), (2, 2), (1, None)]


def test_a_trial_that_the_search_had_stopped_early_is_told_beside_the_searchs_difference() -> None:
    reference, winner = chosen(0.25, 0.9)
    runs = [run(number, seed, 0.3 + 0.6 * number + seed / 1000) for number in (0, 1) for seed in (1, 2)]

    told = conclusion(judge([replace(reference, pruned_after=2), winner], runs, 1000))

    assert told.endswith("In the search the difference was +65.0 (t000 was stopped early there, after 2 epochs).")


def test_a_gain_within_the_scatter_is_not_called_a_win_and_the_detectable_gain_is_told() -> None:
    told = judged_from([0.50, 0.52, 0.48], [0.51, 0.50, 0.53])

    assert (
        "t001's difference from the reference setting could be chance (+1.3 points of val_acc, 95 % interval -7.4 to "
        "+10.1, p = 0.58). With 3 seeds that differ as much as these, a gain of 8.7 points would have been detectable"
    ) in told


def test_so_few_runs_that_no_gain_could_have_been_detected_are_said_to_be_too_few() -> None:
    told = judged_from([0.50, 0.75], [0.75, 0.50])  # gains +25 and -25 points

    assert (
        "could be chance (+0.0 points of val_acc, 95 % interval -100.0 to +100.0, p = 1). With 2 seeds that differ "
        "as much as these, no gain could have been detected: it would have had to be 317.7 points, and only 37.5 can "
        "still be gained; more seeds (--seeds) can detect one."
    ) in told


def test_a_loss_beyond_chance_says_keep_the_reference_setting() -> None:
    assert (
        "t001 is worse than the reference setting (-10.0 points of val_acc, 95 % interval -10.4 to -9.7, p = 7.7e-05): "
        "keep the reference setting."
    ) in judged_from([0.600, 0.612, 0.604], [0.500, 0.510, 0.505])


def test_the_searchs_winner_is_judged_though_another_is_better_over_the_seeds() -> None:
    told = judged_from([0.500, 0.510, 0.505], [0.502, 0.512, 0.504], [0.600, 0.612, 0.604])

    assert told.startswith(
        "conclusion: t001's difference from the reference setting could be chance (+0.1 points of val_acc, "
        "95 % interval -0.3 to +0.5, "
    )
    assert told.endswith(
        " In the search the difference was +10.0. t002 has a higher mean over the seeds (+10.0 points)."
    )


def test_the_table_fits_80_columns_and_later_candidates_follow_the_first_ones_p() -> None:
    runs = [
        run(trial, seed, 0.5 + 0.1 * trial + 0.01 * seed * (trial == 1)) for trial in range(3) for seed in (1, 2, 3)
    ]

    header, reference, first, second, *_ = conclusion_lines(judge(chosen(0.5, 0.6, 0.7), runs, 1000), 1000)

    assert header.split() == ["val_acc", "mean", "±", "spread", "gain", "95", "%", "interval", "p"]
    assert reference == "t000 reference  0.5000 ± 0.0000"
    assert first.split() == [
        "t001",
        "no.",
        "1",
        "0.6200",
        "±",
        "0.0100",
        "+12.0",
        "+9.5",
        "to",
        "+14.5",
        "0.0023",
        "better",
    ]
    assert second.split() == [
        "t002",
        "no.",
        "2",
        "0.7000",
        "±",
        "0.0000",
        "+20.0",
        "+19.9",
        "to",
        "+20.1",
        "0.0023",
        "better",
    ]
    assert max(len(line) for line in (header, reference, first, second)) <= 80


def test_seeds_that_one_of_a_pair_did_not_finish_are_left_out_of_the_test() -> None:
    runs = [*(run(0, seed, value) for seed, value in ((1, 0.5), (2, 0.51), (3, 0.505)))]
    runs += [run(1, 1, 0.6), run(1, 2, None, "diverged"), run(1, 3, 0.604)]

    judged = judge(chosen(0.5, 0.6), runs, 1000)

    assert judged[1].comparison is not None
    assert judged[1].comparison.num_pairs == 2
    assert conclusion(judged).endswith(" Some runs did not finish: 1 of t001.")


def test_wrong_numbers_are_told_together(make_search: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confirm", str(make_search((0.5, 1e-3))), "--top", "0", "--seeds", "1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --top: must be a whole number of at least 1, but got 0",
        "error: --seeds: must be a whole number of at least 2, but got 1",
    ]


def test_what_is_no_search_or_a_damaged_table_is_refused(
    make_search: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["confirm", str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err == f"error: SEARCH_DIR {tmp_path / 'gone'}: there is no such folder\n"
    folder = make_search((0.5, 1e-3))
    (folder / "confirm.csv").write_text("trial,seed\n0,x\n")
    assert main(["confirm", str(folder)]) == 2
    assert "confirm.csv cannot be read" in capsys.readouterr().err


def test_other_photographs_than_the_searchs_are_refused(
    make_search: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_search((0.5, 1e-3))
    open_study(folder).set_user_attr("data", "0123456789abcdef")

    assert main(["confirm", str(folder), "--device", "cpu"]) == 2

    assert f"are not those that {folder} was searched on: give the right folder with --data" in capsys.readouterr().err
    assert not (folder / "confirm").exists()


def test_the_conclusion_names_what_the_others_are_compared_with() -> None:
    for name, short in (("the baseline", "baseline"), ("the first trial", "first")):
        named = [replace(candidate, name=name) for candidate in chosen(0.5, 0.6)]
        runs = [run(trial, seed, accuracy) for trial, accuracy in ((0, 0.5), (1, 0.6)) for seed in (1, 2, 3)]
        lines = conclusion_lines(judge(named, runs, 1000), 1000)
        assert lines[1].startswith(f"t000 {short} ")
        assert f"over seeds against {name};" in lines[-2]
        assert lines[-1].startswith(f"conclusion: t001 is better than {name} (")
