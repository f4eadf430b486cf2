"""Which training `resume` means, and whether it is still the one that was begun."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.api.photographs import Photographs, gone
from tune_cropshield.api.space import RUNS
from tune_cropshield.config.differences import difference, is_same
from tune_cropshield.config.own_files import file_digest
from tune_cropshield.config.registry import is_own, is_same_source, source_digest
from tune_cropshield.config.settings import NOT_COMPARED, OF_LENGTH, DataConfig, RunConfig, load_config, stops_early
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.errors import UserError
from tune_cropshield.training.clock import PARTS, read_times
from tune_cropshield.training.run_folder import CHECKPOINT, CONFIG, METRICS, best_epoch, read_metrics, write_json

if TYPE_CHECKING:  # half a second to import: faulty arguments are told about before
    from tune_cropshield.search.views.view import SearchView

AS_FLAGS = ("epochs", "early_stopping")  # may have been given on the command line
OWN_FILES = "own_files.json"  # in a training's folder: {file of the user's own: SHA-256}
NAMES = ("model", "loss", "optimizer", "schedule", "metric")  # that may stand for code of the user's own


def note_own_files(folder: Path, run: RunConfig) -> None:
    """Writes what stands in the files of the user's own that a training uses: code and weights; nothing without any."""
    if digests := _own_files(run):
        write_json(folder / OWN_FILES, digests)


def _own_files(run: RunConfig) -> dict[str, str | None]:
    named = {getattr(run.trial, name) for name in NAMES}
    code = {name: source_digest(name) for name in sorted(named) if is_own(name)}
    weights = run.trial.pretrained
    return {**code, weights: file_digest(Path(weights))} if isinstance(weights, str) else code


@dataclass(frozen=True)
class ResumedTraining:
    """A training to continue.

    run: its configuration, with the photographs where they lie now. note: its name, when it was begun and how far it
    has come, in words.
    """

    folder: Path
    run: RunConfig
    note: str


@dataclass(frozen=True)
class _Begun:
    folder: Path
    run: RunConfig
    epochs: int  # that are done
    began: datetime | None
    ended: bool

    def __str__(self) -> str:
        return f"{self.folder}" + (f", begun {self.began:%Y-%m-%d %H:%M}" if self.began is not None else "")


def resumed_training(
    out: Path | None, run: RunConfig, view: SearchView, *, moved: bool, fitted: bool
) -> ResumedTraining:
    """Returns the training to continue: the one in `out`, else the last one below results/runs with these settings.

    Of several, that is the newest which has not come to its end, else the newest.

    Args:
        run: the configuration that was asked for.
        view: shows that photographs are looked at.
        moved: its photographs' folder was said now, and goes before the one that the training knows.
        fitted: the number of epochs is fitted to a time, so that it may differ.

    Raises:
        UserError: there is no such training, it is running, or something differs: with all that does, by name and with
            both values.
        DataError: what was said is no folder of photographs.
    """
    from tune_cropshield.search.folder import check_not_running

    photographs = Photographs(view)
    begun = _read(out) if out is not None else _last_of_same(run, photographs, moved=moved, fitted=fitted)
    check_not_running(begun.folder, "training")
    run = run.model_copy(update={"data": _place(begun, run, moved)})
    if not run.data.given:
        raise UserError(f"{begun.folder} names no photographs: give --data DIR")
    differ = _differences(begun.run, run, (*OF_LENGTH, "threads") if fitted else ())
    files = _changed_files(begun)
    looks = run.data.is_there or moved
    changed = photographs.changed(begun.folder, run.data, begun.run.data) if looks else ""
    if differ or files:
        told = "; ".join([*differ.values(), *files, *([f"{changed} (in {run.data.place})"] if changed else [])])
        raise UserError(
            f"{begun.folder} was trained with other settings: {told}. To continue it, "
            f"{_remedy(begun.run, differ, files, changed)}; or start a new training with another --out"
        )
    if changed:
        raise UserError(
            f"{run.data.place}: since this training was begun, {changed}. Put them back as they were, or start a new "
            "training with another --out"
        )
    if not run.data.is_there:
        raise UserError(gone("training", run.data))
    planned = "" if fitted else f" of {begun.run.trial.epochs}"
    note = f"continuing {begun}: {begun.epochs}{planned} {'epoch is' if begun.epochs == 1 else 'epochs are'} done"
    return ResumedTraining(begun.folder, run, note)


def _read(folder: Path) -> _Begun:
    """Returns the training in `folder`; raises UserError where there is none, or its settings cannot be read."""
    for name in (CONFIG, METRICS):
        if not (folder / name).exists():
            raise UserError(f"{folder} contains no training to continue ({name} is missing)")
    run, lines = load_config(folder / CONFIG), read_metrics(folder)
    trial, best, last = run.trial, best_epoch(lines), lines[-1]["epoch"] if lines else 0
    ended = last >= trial.epochs or (
        best is not None and stops_early(trial.early_stopping, trial.unfreeze_epochs, last, best["epoch"])
    )
    began = None
    for line in read_times(folder)[:1]:
        began = datetime.fromtimestamp(line["ended"] - sum(line[part] for part in PARTS))
    return _Begun(folder, run, last, began, ended)


def _place(begun: _Begun, run: RunConfig, moved: bool) -> DataConfig:
    """Returns [data] of `run` with where the photographs come from.

    That is as was said now, else as the training knows it, if they are there.
    """
    known = begun.run.data
    if moved or not (known.is_there or not run.data.given):
        return run.data
    return run.data.at({**known.places, "columns": known.columns})


def _differences(then: RunConfig, now: RunConfig, may_differ: Sequence[str]) -> dict[str, str]:
    """Returns {setting: what differs, in words}; where the photographs come from is left out."""
    before = {**then.data.model_dump(exclude={*NOT_COMPARED} - {"folds", "fold"}), **then.trial.model_dump()}
    after = {**now.data.model_dump(exclude={*NOT_COMPARED} - {"folds", "fold"}), **now.trial.model_dump()}
    return {
        name: difference(name, before[name], value)
        for name, value in after.items()
        if name not in may_differ and not is_same(name, before[name], value)
    }


def _changed_files(begun: _Begun) -> list[str]:
    """Returns which files of the user's own have changed, a few words each."""
    try:
        before = json.loads((begun.folder / OWN_FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it uses none, or is of a version that noted none
        return []
    return [
        f"{name} has changed"
        for name, now in _own_files(begun.run).items()
        if before.get(name, now) != now and not is_same_source(name, before[name])
    ]


def _remedy(then: RunConfig, differ: dict[str, str], files: Sequence[str], changed: str) -> str:
    """Returns what makes the two the same."""
    if "threads" in differ and then.trial.threads is not None:
        return "give it a time again (--time), if it had one, or set the configuration back"
    flags = [f"--{name.replace('_', '-')} {getattr(then.trial, name)}" for name in AS_FLAGS if name in differ]
    remedies = [f"give {' '.join(flags)}"] if flags else []
    remedies += ["put the file back as it was"] if files else []
    remedies += ["set the configuration back"] if differ.keys() - {*AS_FLAGS} else []
    return " and ".join([*remedies, *(["put the photographs back as they were"] if changed else [])])


def _last_of_same(run: RunConfig, photographs: Photographs, *, moved: bool, fitted: bool) -> _Begun:
    """Returns the last training below results/runs that differs in nothing; raises UserError where there is none."""
    found = []
    for config in RUNS.glob(f"*/{CONFIG}"):
        folder = config.parent
        if (folder / SETTINGS).exists() or not ((folder / METRICS).exists() or (folder / CHECKPOINT).exists()):
            continue
        try:
            found.append(_read(folder))
        except (UserError, OSError):  # of another version
            continue
    if not found:
        raise UserError(
            f"--resume: there is no training in {RUNS} to continue: name its folder (--out DIR), or leave out --resume"
        )
    found.sort(key=lambda one: (one.began or datetime.min, len(one.folder.name), one.folder.name), reverse=True)
    compared = []
    for begun in found:
        # A training that was fitted to a time has its threads from there; another one is not meant by --time.
        differ = _differences(begun.run, run, OF_LENGTH if fitted else ())
        changed = ""
        if not differ and (place := _place(begun, run, moved)).given and (place.is_there or moved):
            changed = photographs.changed(begun.folder, place, begun.run.data)
        compared.append((begun, differ, changed))
    same = [begun for begun, differ, changed in compared if not differ and not changed]
    if same:
        return next((begun for begun in same if not begun.ended), same[0])
    nearest, differ, changed = min(compared, key=lambda one: len(one[1]) + bool(one[2]))  # of equals, the newest
    where = _place(nearest, run, moved).place
    told = "; ".join([*differ.values(), *([f"{changed} (in {where})"] if changed else [])])
    raise UserError(
        f"--resume: no training in {RUNS} has these settings. The nearest is {nearest}: {told}. To continue it, "
        f"{_remedy(nearest.run, differ, (), changed)}; for a new training, leave out --resume"
    )
