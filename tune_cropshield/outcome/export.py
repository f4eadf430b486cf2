"""The best trial of a search in forms that can be used: best/, TOML, JSON, a call of train.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tune_cropshield.config.goals import goal_of
from tune_cropshield.config.own_files import CODE
from tune_cropshield.config.reference import is_recommended, train_py_command
from tune_cropshield.config.settings import RunConfig, config_text, save_config
from tune_cropshield.data.split_file import SPLIT_TABLE, read_split, rows_of_fold, write_rows
from tune_cropshield.errors import RunFailure
from tune_cropshield.files import raising_disk_full, sync_names, sync_tree, write_text_atomically
from tune_cropshield.outcome.evaluation import keep_evaluations
from tune_cropshield.outcome.trained import BEST, read_config
from tune_cropshield.search.final import ORIGIN, delivered
from tune_cropshield.shell import spelled
from tune_cropshield.training.predictions import PREDICTIONS
from tune_cropshield.training.run_folder import (
    BEST_METRICS,
    CLASSES,
    CONFIG,
    PART,
    PREPARATION,
    WEIGHTS,
    best_epoch,
    best_of_parts,
    network_folder,
    read_digest,
    read_metrics,
    spread_of_parts,
    write_json,
)

RETRAIN_SH = """\
#!/bin/sh
{notes}
# PYTHON=/path/to/python sh retrain.sh  uses another Python than the one that searched.
here=$(dirname "$0")
set -- train --config="$here/config.toml" --out="$here/../retrained" "$@"
python=${{PYTHON:-{python}}}
if command -v "$python" > /dev/null; then exec "$python" -m tune_cropshield "$@"; fi
if command -v tune-cropshield > /dev/null; then exec tune-cropshield "$@"; fi
echo "error: $python is not there: say which Python has tune_cropshield (PYTHON=/path/to/python sh $0)" >&2
exit 2
"""
RETRAIN_PS1 = """\
{notes}
# $env:PYTHON = 'C:\\path\\to\\python.exe'  uses another Python than the one that searched.
$python = if ($env:PYTHON) {{ $env:PYTHON }} else {{ {python} }}
$words = @('train', "--config=$PSScriptRoot/config.toml", "--out=$PSScriptRoot/../retrained") + $args
if (Get-Command $python -ErrorAction SilentlyContinue) {{ & $python -m tune_cropshield @words; exit $LASTEXITCODE }}
if (Get-Command tune-cropshield -ErrorAction SilentlyContinue) {{ tune-cropshield @words; exit $LASTEXITCODE }}
[Console]::Error.WriteLine("error: $python is not there: say which Python has tune_cropshield (`$env:PYTHON)")
exit 2
"""


def write_best(search_dir: Path) -> Path:
    """Writes search_dir/best, aside and renamed, from the best trial or the final training, and returns its path.

    Which of them is the result, see `delivered`; origin.json says it.

    config.toml and config.json, model.safetensors of the best epoch, classes.json, preparation.json, metrics.json and
    predictions.csv (that epoch's), split.csv and retrain.sh/.ps1. Of a trial in parts, it is the network of its best
    part: split.csv is that part's, metrics.json says which part it is and what the trial is worth, and config.toml is
    the setting on the whole train split. Raises UserError when no trial of the search has a
    result, DiskFull when the disk is full, RunFailure when a file of the trial is missing. What `evaluate` wrote of the
    same weights stays.
    """
    from tune_cropshield.search.folder import trial_folder
    from tune_cropshield.search.journal import best_trial, read_study

    study = read_study(search_dir)
    final = delivered(search_dir, study)
    number = final.trial if final is not None else best_trial(study).number
    run_dir = final.folder if final is not None else trial_folder(search_dir, best_trial(study).number)
    config, network = read_config(run_dir), network_folder(run_dir)
    aside, target = search_dir / f".{BEST}.tmp", search_dir / BEST
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with raising_disk_full(target):
            aside.mkdir()
            save_config(config, aside / CONFIG)
            write_json(aside / "config.json", config.model_dump(mode="json"))
            for name in (WEIGHTS, CLASSES, BEST_METRICS):
                shutil.copyfile(network / name, aside / name)
            for source in (network / PREPARATION, network / PREDICTIONS, search_dir / SPLIT_TABLE):
                if source.exists():  # searches of earlier versions hold none
                    shutil.copyfile(source, aside / source.name)
            if (network / CODE).is_dir():
                shutil.copytree(network / CODE, aside / CODE)
            if network != run_dir:
                _tell_the_part(aside, run_dir, network)
            write_json(aside / ORIGIN, {"folder": run_dir.name, "trial": number})
            keep_evaluations(target, aside, read_digest(network))
            of_trial = number if final is None else None
            for name, text in retrain_scripts(config, of_trial, in_parts=network != run_dir).items():
                write_text_atomically(aside / name, text)
            (aside / "retrain.sh").chmod(0o755)
            sync_tree(aside)  # before it takes the place of one that is whole
            shutil.rmtree(target, ignore_errors=True)
            aside.replace(target)
            sync_names(search_dir)
    except OSError as error:
        raise RunFailure(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _tell_the_part(best: Path, run_dir: Path, network: Path) -> None:
    """Brings split.csv and metrics.json in best/ to the part of a trial whose network it holds."""
    write_rows(best, rows_of_fold(read_split(best) or [], read_config(network).data))
    lines = read_metrics(run_dir)
    trial = best_epoch(lines)
    assert trial is not None
    metrics = json.loads((best / BEST_METRICS).read_text(encoding="utf-8"))
    parts = {"part": trial[PART], "parts": len(best_of_parts(lines))}
    goal = goal_of(lines)
    means = {f"mean_{name}": trial[name] for name in dict.fromkeys(["val_acc", goal.name])}
    worth = {**means, f"{goal.name}_std": spread_of_parts(lines)}
    write_json(best / BEST_METRICS, {**metrics, **parts, **worth})


def retrain_scripts(config: RunConfig, trial: int | None, *, in_parts: bool = False) -> dict[str, str]:
    """Returns {file name: text} of retrain.sh and retrain.ps1: the command that trains this again.

    It trains into a folder beside best/, which a resumed search writes anew. It uses the Python that $PYTHON names, or
    the one that wrote the scripts, or where that is gone the tune-cropshield on the PATH. A comment holds the nearest
    call of the training guide's own train.py, if the guide speaks of this network.

    Args:
        trial: whose number this is; None for the final training.
        in_parts: the trial was trained on several folds or with several seeds, and is trained on the whole train split
            now.
    """
    again = f"# Trains trial {trial} of the search again: on the same kind of CPU, with the same numbers."
    if trial is None:
        again = "# Trains the search's final training again, with as many epochs."
    elif in_parts:
        again = f"# Trains the setting of trial {trial} of the search on the whole train split."
    notes = [again]
    if is_recommended(config.trial):
        notes += [
            "# The nearest call of the training guide's train.py (it has no flags for the rest of config.toml):",
            f"#   {train_py_command(config.trial)}",
        ]
    python = sys.executable
    shell = RETRAIN_SH.format(notes="\n".join(notes), python=spelled([python], windows=False))
    power = RETRAIN_PS1.format(notes="\n".join(notes), python="'" + Path(python).as_posix().replace("'", "''") + "'")
    return {"retrain.sh": shell, "retrain.ps1": power}


def best_run(search_dir: Path) -> Path:
    """Returns the folder of a search's best trial: best/, written now where it is missing.

    Of a trained run (`train --out`), it is that run itself.

    Raises UserError when `search_dir` holds neither, or a search that is still running and has no best/ yet.
    """
    if (search_dir / CONFIG).is_file() and (search_dir / WEIGHTS).is_file():
        return search_dir
    best = search_dir / BEST
    if not (best / CONFIG).exists():
        from tune_cropshield.search.folder import locked
        from tune_cropshield.search.journal import best_trial, read_study

        study = read_study(search_dir)
        if delivered(search_dir, study) is None:
            best_trial(study)  # raises where there is nothing to write, before a file is touched
        with locked(search_dir):
            write_best(search_dir)
    return best


def exported(run_dir: Path, form: str) -> tuple[str, str]:
    """Returns (file name, text) of a run's settings in `form`: "toml", "json" or "command"."""
    config = read_config(run_dir)
    if form == "toml":
        return CONFIG, config_text(config, CONFIG)
    if form == "json":
        return "config.json", json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    return "train_py_command.txt", train_py_command(config.trial) + "\n"
