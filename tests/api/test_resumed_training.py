"""`train --resume` with the arguments of the start: which training is meant, and what is told that differs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.resume_training import note_own_files, resumed_training
from tune_cropshield.config.settings import RunConfig, load_config, save_config
from tune_cropshield.files import make_free_folder
from tune_cropshield.search.folder import locked
from tune_cropshield.search.views.view import SearchView
from tune_cropshield.training.run_folder import read_metrics

RUNS = Path("results/runs")


@pytest.fixture
def begun(trained: tc.TrainResult, tables: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A configuration, of which `newer` has come to its end and the `older` training has two of four epochs."""
    monkeypatch.chdir(home)
    shutil.copytree(trained.folder, RUNS / "newer")
    shutil.copytree(trained.folder, RUNS / "older")
    lines = (RUNS / "older" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (RUNS / "older" / "metrics.jsonl").write_text("".join(lines[:2]))
    return RunConfig.model_validate(tables)


def with_trial(run: RunConfig, **settings: Any) -> RunConfig:
    return run.model_copy(update={"trial": run.trial.model_copy(update=settings)})


def refusal(out: Path | None, run: RunConfig, *, fitted: bool = False) -> str:
    with pytest.raises(tc.UserError) as refused:
        resumed_training(out, run, SearchView(), moved=False, fitted=fitted)
    return str(refused.value)


def test_the_last_training_of_the_same_configuration_that_has_not_ended_is_meant_else_the_last(
    begun: RunConfig,
) -> None:
    found = resumed_training(None, begun, SearchView(), moved=False, fitted=False)
    assert found.folder == RUNS / "older"
    assert found.note.startswith("continuing results/runs/older, begun 2")
    assert found.note.endswith(": 2 of 4 epochs are done")

    (RUNS / "older").rename(RUNS / "else")
    shutil.copytree(RUNS / "newer", RUNS / "newer-2")
    shutil.rmtree(RUNS / "else")
    assert resumed_training(None, begun, SearchView(), moved=False, fitted=False).folder == RUNS / "newer-2"


def test_what_differs_is_told_by_name_with_both_values_and_what_to_do(begun: RunConfig) -> None:
    other = with_trial(begun, epochs=9, lr=0.25)
    assert refusal(RUNS / "older", other).endswith(
        " was trained with other settings: lr (0.005 then, 0.25 now); epochs (4 then, 9 now). To continue it, give "
        "--epochs 4 and set the configuration back; or start a new training with another --out"
    )
    assert refusal(None, with_trial(begun, epochs=9)).startswith(
        "--resume: no training in results/runs has these settings. The nearest is results/runs/"
    )
    assert "give it a time again (--time)" in refusal(None, with_trial(begun, epochs=9, threads=None))
    assert "threads (1 then, 99 now)" in refusal(None, with_trial(begun, threads=99), fitted=True)


def test_photographs_that_moved_are_known_by_their_content_and_the_training_remembers_where(
    begun: RunConfig, drawn_leaves: Path, home: Path
) -> None:
    moved = Path(shutil.copytree(drawn_leaves, home / "moved"))
    config = RUNS / "older" / "config.toml"
    gone = config.read_text().replace(str(drawn_leaves), str(home / "gone"))
    for folder in ("older", "newer"):
        (RUNS / folder / "config.toml").write_text(gone)
    there = begun.model_copy(update={"data": begun.data.model_copy(update={"dir": str(moved)})})

    assert resumed_training(None, there, SearchView(), moved=True, fitted=False).run.data.dir == str(moved)

    removed = min((moved / "rust").iterdir())
    removed.unlink()
    with pytest.raises(tc.UserError) as refused:
        resumed_training(None, there, SearchView(), moved=True, fitted=False)
    assert f"1 photograph is gone: rust/{removed.name} (in {moved})" in str(refused.value)
    nowhere = begun.model_copy(update={"data": begun.data.model_copy(update={"dir": ""})})
    assert refusal(RUNS / "older", nowhere) == (
        f"the photographs of this training are no longer in {home / 'gone'}: say where (--data DIR)"
    )


def test_a_file_of_ones_own_that_was_changed_is_named(begun: RunConfig, home: Path) -> None:
    (home / "own.py").write_text("class Loss: ...\n")
    own = RunConfig.model_validate({**begun.model_dump(), "trial": {**begun.trial.model_dump(), "loss": "own.py:Loss"}})
    note_own_files(RUNS / "older", begun)
    assert not (RUNS / "older" / "own_files.json").exists()
    save_config(own, RUNS / "older" / "config.toml")
    note_own_files(RUNS / "older", own)
    assert resumed_training(None, own, SearchView(), moved=False, fitted=False).folder == RUNS / "older"

    (home / "own.py").write_text("class Loss: ...\n# another line\n")
    assert refusal(RUNS / "older", own).endswith(
        f" was trained with other settings: {home / 'own.py'}:Loss has changed. To continue it, put the file back as "
        "it was; or start a new training with another --out"
    )


def test_weights_that_were_changed_are_named(begun: RunConfig, home: Path) -> None:
    weights = home / "weights.pth"
    weights.write_bytes(b"some")
    own = RunConfig.model_validate(
        {**begun.model_dump(), "trial": {**begun.trial.model_dump(), "pretrained": str(weights)}}
    )
    save_config(own, RUNS / "older" / "config.toml")
    assert resumed_training(RUNS / "older", own, SearchView(), moved=False, fitted=False)  # of an earlier version
    note_own_files(RUNS / "older", own)
    assert resumed_training(RUNS / "older", own, SearchView(), moved=False, fitted=False)

    weights.write_bytes(b"other")
    assert refusal(RUNS / "older", own).endswith(
        f" was trained with other settings: {weights} has changed. To continue it, put the file back as it was; or "
        "start a new training with another --out"
    )


def test_a_training_that_runs_is_told_and_not_joined(begun: RunConfig) -> None:
    with locked(RUNS / "older", "training"):
        told = "a training is running in results/runs/older: wait until it ends, or stop it"
        assert refusal(None, begun) == refusal(RUNS / "older", begun) == told


def test_the_same_command_goes_on_after_its_photographs_moved(
    tables: dict[str, Any], drawn_leaves: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    leaves = Path(shutil.copytree(drawn_leaves, home / "leaves"))
    run = RunConfig.model_validate(tables)

    class Interrupting(tc.SearchView):
        def note(self, text: str) -> None:
            if text.startswith("epoch   2/4"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tc.train(run, data=leaves, device="cpu", progress=Interrupting())
    moved = leaves.rename(home / "moved")
    done = tc.train(run, data=moved, device="cpu", resume=True, progress=False)

    assert [folder.name for folder in RUNS.iterdir()] == [done.folder.name]
    assert [line["epoch"] for line in read_metrics(done.folder)] == [1, 2, 3, 4]
    assert load_config(done.folder / "config.toml").data.dir == str(moved)


def test_two_trainings_in_one_named_folder_at_once_are_one_training_and_one_refusal(
    tables: dict[str, Any], home: Path, drawn_leaves: Path
) -> None:
    told: list[str] = []

    def start() -> None:
        try:
            told.append(str(tc.train(tables, out=home / "out", device="cpu", progress=False).folder))
        except tc.UserError as error:
            told.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    out = home / "out"
    refusals = [line for line in told if line != str(out)]
    assert len(refusals) == 1
    assert refusals[0] in (
        f"a training is running in {out}: wait until it ends, or stop it",
        f"{out} already contains a training: continue it (--resume) or give another folder (--out)",
    )
    assert len(read_metrics(out)) == 4


def test_processes_that_want_one_name_at_once_get_one_each(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tune_cropshield.files import make_free_folder; "
    code += "sys.stdin.readline(); print(make_free_folder(Path(sys.argv[1])).name)"
    command = [sys.executable, "-c", code, str(tmp_path / "results" / "runs" / "demo-20261128-120000")]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = sorted(process.communicate(timeout=60)[0].strip() for process in started)

    assert names == ["demo-20261128-120000", *(f"demo-20261128-120000-{number}" for number in (2, 3, 4))]
    assert make_free_folder(tmp_path / "results" / "runs" / "demo-20261128-120000").name.endswith("-5")
