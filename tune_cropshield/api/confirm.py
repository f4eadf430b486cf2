"""`confirm`: is a search's win larger than seed noise?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import (
    DEVICES,
    AnyColumns,
    AnyPath,
    DeviceChoice,
    Progress,
    check_choice,
    columns_as_flag,
    command_line,
    moved_to,
    view_of,
)
from tune_cropshield.api.names import search_named
from tune_cropshield.api.report import write_again
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import DataConfig, Fit, TrialConfig
from tune_cropshield.data.split_file import SplitRow, read_split
from tune_cropshield.device import find_device
from tune_cropshield.errors import ConfigError, RunFailure, UserError
from tune_cropshield.outcome import words
from tune_cropshield.search.resources import divide
from tune_cropshield.shell import command

if TYPE_CHECKING:  # half a second and more to import: faulty arguments are told about before
    from tune_cropshield.data.dataset import DeviceData, LeafData
    from tune_cropshield.outcome.conclusion import Confirmed
    from tune_cropshield.outcome.confirm import Candidate, ConfirmedRun
    from tune_cropshield.search.views.view import SearchView
    from tune_cropshield.training.progress import TrialReport


@dataclass(frozen=True)
class ConfirmResult:
    """What training the winners again over several seeds shows.

    candidates: the reference setting (trial 0) first, then the best trials; each with its runs, and from the second on
    how it compares. photographs: how many each run was judged on.
    """

    folder: Path
    seeds: list[int]
    photographs: int
    candidates: list[Confirmed]
    conclusion: str

    @property
    def any_finished(self) -> bool:
        """Whether at least one run was trained to its end."""
        return any(candidate.values for candidate in self.candidates)

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of confirm.json. Shares, not points: 0.01 is one point of accuracy."""
        from tune_cropshield.outcome.conclusion import FILE

        content: dict[str, Any] = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        return content


def confirm(
    search_dir: AnyPath,
    *,
    top: int = 3,
    seeds: int = 3,
    data: AnyPath | None = None,
    labels: AnyPath | None = None,
    columns: AnyColumns | None = None,
    train: AnyPath | None = None,
    val: AnyPath | None = None,
    test: AnyPath | None = None,
    device: DeviceChoice | None = None,
    progress: Progress = True,
) -> ConfirmResult:
    """Trains the best trials and the reference setting again over several seeds, and says what that shows.

    The same call goes on where it was stopped: runs that confirm.csv holds are not repeated.

    Args:
        search_dir: The folder of a search that is not running, or its name in results/runs.
        top: How many of the best trials are trained again.
        seeds: With how many new seeds each; the split stays the same.
        data: The folder of photographs, where it has moved.
        labels, columns, train, val, test: The table or the folders, where these have; see `tune_cropshield.search`.
        device: "cpu", "cuda" or "auto", instead of the search's.
        progress: Shown while it trains; see `tune_cropshield.search`.

    Raises:
        UserError: The folder holds no search with results to compare, or the photographs are other ones.
        RunFailure: A run failed in another way than by diverging or running out of memory.
    """
    limits = {"--top": (top, 1), "--seeds": (seeds, 2)}
    faults = [
        f"{flag}: must be a whole number of at least {low}, but got {value!r}"
        for flag, (value, low) in limits.items()
        if not isinstance(value, int) or value < low
    ]
    if faults:
        raise ConfigError(faults)
    if device is not None:
        check_choice("--device", device, DEVICES)
    from tune_cropshield.config.space import SETTINGS
    from tune_cropshield.config.space_file import load_space
    from tune_cropshield.outcome.confirm import (
        candidates,
        conditions_of,
        fresh_seeds,
        read_table,
        under_other_conditions,
    )
    from tune_cropshield.search.folder import locked
    from tune_cropshield.search.journal import read_study
    from tune_cropshield.search.start_points import name_of_trial_0

    folder = search_named(search_dir)
    study = read_study(folder)
    space = load_space(folder / SETTINGS)
    chosen = candidates(folder, study, top, name_of_trial_0(space))
    new_seeds = fresh_seeds(chosen[0], seeds, space.search.replicates)
    table = read_table(folder)  # a damaged one is told about at once
    known = chosen[0].config.data
    places = {"data": data, "labels": labels, "columns": columns, "train": train, "val": val, "test": test}
    photographs = moved_to(known, places) or known
    used = find_device(device or space.search.device)
    said = {**places, "columns": columns_as_flag(columns) if columns is not None else None}
    again = command_line("confirm", search_dir, top=top, seeds=seeds, **said, device=device)
    import torch

    from tune_cropshield.data.dataset import DeviceData
    from tune_cropshield.outcome.conclusion import conclusion, conclusion_lines, judge, write_conclusion

    view = view_of(progress)
    trials = [candidate.config.trial for candidate in chosen]
    with locked(folder):
        opened = _open(photographs, trials, space.fits, view, read_split(folder))
        _check_same_photographs(folder, study.user_attrs.get("data"), opened)
        num_judged = len(opened.split.val)
        labels = ", ".join(f"t{each.trial:03d}" for each in chosen[1:])
        view.note(
            f"{len(chosen) * len(new_seeds)} runs of {words.counted(trials[0].epochs, 'epoch')} on {used}: "
            f"{chosen[0].name} and {labels}, each with the seeds {', '.join(map(str, new_seeds))}; the same split for "
            f"all, {words.counted(num_judged, 'validation photograph')}"
        )
        moved = [_with_photographs(candidate, photographs) for candidate in chosen]
        on_device, threads = DeviceData(opened, torch.device(used)), divide(used, 1, 1).threads
        conditions = conditions_of(on_device, threads)
        for others, count in under_other_conditions(table, conditions).items():
            view.note(
                f"confirm.csv holds {words.counted(count, 'run')} under other conditions, which do not count here: "
                f"{others} (now {conditions})"
            )
        runs = _train_all(folder, moved, new_seeds, on_device, threads, view, again)
        judged = judge(chosen, runs, num_judged)
        write_conclusion(folder, judged, new_seeds, num_judged, conditions)
    report = write_again(folder, opened)
    lines = [f"report: {report}"] if report is not None else []
    view.result([*lines, *conclusion_lines(judged, num_judged)], {})
    return ConfirmResult(folder, new_seeds, num_judged, judged, conclusion(judged).removeprefix("conclusion: "))


def _open(
    photographs: DataConfig,
    trials: Sequence[TrialConfig],
    fits: Sequence[Fit],
    view: SearchView,
    kept: Sequence[SplitRow] | None,
) -> LeafData:
    """Returns the photographs, decoded, with the split of the search."""
    from tune_cropshield.data.dataset import open_data
    from tune_cropshield.data.left_out import left_out_lines
    from tune_cropshield.training.model_checks import check_pretrained

    with view.steps("decoding photographs") as decoded:
        sizes = {side for trial in trials for side in (trial.image_size, *trial.progressive_sizes.values())}
        data = open_data(photographs, sizes, cache_dir(), decoded, fits, kept)
    for trial in trials:
        check_pretrained(trial, len(data.classes))
    for line in left_out_lines(data.left_out):
        view.note(line)
    return data


def _check_same_photographs(folder: Path, mark: str | None, opened: LeafData) -> None:
    """Raises UserError where these are not the photographs that were searched on, or they are split otherwise.

    mark: the beginning of the fingerprint of the search's store; searches of earlier versions kept no split.csv.
    """
    from tune_cropshield.data.split_file import split_rows

    searched = read_split(folder)
    where = f"the photographs in {opened.store.root} are not those that {folder} was searched on"
    if searched is None:
        if mark not in (None, opened.store.fingerprint[:16]):
            raise UserError(f"{where}: give the right folder with --data")
        return
    then, now = (
        Counter((row.digest, row.class_name, row.side) for row in rows) for rows in (searched, split_rows(opened))
    )
    gone, new = (then - now).total(), (now - then).total()
    if gone or new:
        raise UserError(
            f"{where}: {gone} of {len(searched)} are missing or in another part of the split, {new} are new: give "
            "the right folder with --data"
        )


def _train_all(
    folder: Path,
    chosen: Sequence[Candidate],
    seeds: Sequence[int],
    data: DeviceData,
    threads: int,
    view: SearchView,
    again: Sequence[str],
) -> list[ConfirmedRun]:
    """Returns the runs of all candidates with all seeds, a line told about each.

    threads: of the CPU, the same for all. again: the words behind the program's name that go on with it.
    """
    from tune_cropshield.outcome.confirm import confirm
    from tune_cropshield.search.stop_requests import StopRequests
    from tune_cropshield.training.orderly_end import orderly_end

    epochs, num_runs = chosen[0].config.trial.epochs, len(chosen) * len(seeds)
    runs: list[ConfirmedRun] = []
    requests = StopRequests(folder)
    requests.forget()
    with view.steps(f"epochs of {num_runs} runs") as shown, orderly_end(view.note) as end:

        def started(candidate: Candidate, seed: int) -> Callable[[TrialReport], object]:
            def report(done: TrialReport) -> None:
                shown(len(runs) * epochs + done.metrics.epoch, num_runs * epochs)
                if None in requests.take():
                    raise KeyboardInterrupt
                end.epoch_ended(done.metrics.epoch_s)

            return report

        try:
            for done in confirm(folder, chosen, seeds, threads, data, started):
                runs.append(done)
                goal = chosen[0].goal
                value = f"best {goal.named(done.value)}" if done.value is not None else "no result"
                shown(len(runs) * epochs, num_runs * epochs)
                view.note(
                    f"t{done.trial:03d} seed {done.seed} {done.outcome} after {words.counted(done.epochs, 'epoch')}, "
                    f"{value}; {len(runs)} of {num_runs} runs"
                )
        except (KeyboardInterrupt, RunFailure):
            view.note(f"{len(runs)} of {num_runs} runs are done. To continue:  {command(*again)}")
            raise
    return runs


def _with_photographs(candidate: Candidate, photographs: DataConfig) -> Candidate:
    """Returns `candidate` trained on photographs that may have moved."""
    data = candidate.config.data.at({**photographs.places, "columns": photographs.columns})
    return replace(candidate, config=candidate.config.model_copy(update={"data": data}))
