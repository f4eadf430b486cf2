"""`confirm`: is a search's win larger than seed noise?"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.device import find_device
from tune_cropshield.errors import ConfigError, RunFailure, UserError
from tune_cropshield.search.resources import divide
from tune_cropshield.search.views.choose import view_for
from tune_cropshield.training.model_checks import check_pretrained

if TYPE_CHECKING:
    from tune_cropshield.outcome.confirm import Candidate
    from tune_cropshield.training.progress import TrialReport


def run(args: argparse.Namespace) -> int:
    """Trains the best trials and the guide's setting again over several seeds, and says what that shows."""
    limits = {"--top": (args.top, 1), "--seeds": (args.seeds, 2)}
    faults = [
        f"{flag}: must be at least {low}, but got {value}" for flag, (value, low) in limits.items() if value < low
    ]
    if faults:
        raise ConfigError(faults)
    from tune_cropshield.config.space import load_space
    from tune_cropshield.outcome.confirm import candidates, confirm, fresh_seeds, read_table
    from tune_cropshield.search.folder import SETTINGS, locked
    from tune_cropshield.search.journal import read_study

    search_dir: Path = args.search_dir
    study = read_study(search_dir)
    space = load_space(search_dir / SETTINGS)
    chosen = candidates(search_dir, study, args.top)
    seeds = fresh_seeds(chosen[0], args.seeds)
    read_table(search_dir)  # a damaged one is told about at once
    photographs = chosen[0].config.data
    if args.data is not None:
        photographs = photographs.model_copy(update={"dir": str(args.data.absolute())})
    device = find_device(args.device or space.search.device)
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.outcome.confirm_verdict import judge, verdict_lines, write_verdict

    view = view_for(Console(soft_wrap=True, highlight=False))
    trial = space.trial_config()
    with locked(search_dir):
        with view.steps("decoding photographs") as progress:
            data = open_data(photographs, {trial.image_size, *trial.progressive_sizes.values()}, cache_dir(), progress)
        if study.user_attrs.get("data") not in (None, data.store.fingerprint[:16]):
            raise UserError(
                f"the photographs in {photographs.dir} are not those that {search_dir} was searched on: give "
                "them with --data"
            )
        check_pretrained(trial, len(data.classes))
        num_runs, num_judged = len(chosen) * len(seeds), len(data.split.val)
        labels = ", ".join(f"t{each.trial:03d}" for each in chosen[1:])
        view.note(
            f"{num_runs} runs of {trial.epochs} epochs on {device}: the guide's setting and {labels}, "
            f"each with the seeds {', '.join(map(str, seeds))}; one split, {num_judged} photographs to judge by"
        )
        with view.steps(f"epochs of {num_runs} runs") as progress:
            counter = _Counter(view.note, progress, trial.epochs, num_runs)
            runs = []
            try:
                moved = [_with_photographs(candidate, photographs) for candidate in chosen]
                for done in confirm(
                    search_dir,
                    moved,
                    seeds,
                    divide(device, 1, 1).threads,
                    DeviceData(data, torch.device(device)),
                    counter.started,
                ):
                    runs.append(done)
                    value = f"best val_acc {done.best_val_acc:.4f}" if done.best_val_acc is not None else "no result"
                    counter.ended(
                        f"t{done.trial:03d} seed {done.seed} {done.outcome} after {done.epochs} epochs, {value}"
                    )
            except (KeyboardInterrupt, RunFailure):
                view.note(
                    f"{len(runs)} of {num_runs} runs are done. Go on:  python -m tune_cropshield "
                    f"{shlex.join(args.argv)}"
                )
                raise
        judged = judge(chosen, runs, num_judged)
        write_verdict(search_dir, judged, seeds, num_judged)
    view.result(verdict_lines(judged, num_judged), {})
    return 0 if any(confirmed.values for confirmed in judged) else 1


def _with_photographs(candidate: Candidate, photographs: DataConfig) -> Candidate:
    """Returns `candidate` trained on a folder that may have moved."""
    from dataclasses import replace

    return replace(candidate, config=candidate.config.model_copy(update={"data": photographs}))


class _Counter:
    """Counts epochs of all runs for the progress bar, and says a line per run."""

    def __init__(
        self, note: Callable[[str], None], progress: Callable[[int, int], None], epochs: int, num_runs: int
    ) -> None:
        self._note, self._progress, self._epochs, self._num_runs = note, progress, epochs, num_runs
        self._ended = 0

    def started(self, candidate: Candidate, seed: int) -> Callable[[TrialReport], object]:
        """Returns what is called after each epoch of a run."""
        return lambda report: self._progress(
            self._ended * self._epochs + report.metrics.epoch, self._num_runs * self._epochs
        )

    def ended(self, text: str) -> None:
        """A run ended, or had ended in an earlier confirmation."""
        self._ended += 1
        self._progress(self._ended * self._epochs, self._num_runs * self._epochs)
        self._note(f"{text}; {self._ended} of {self._num_runs} runs")
