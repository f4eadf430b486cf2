"""Records whole trainings of random settings: a table that samplers and pruning rules can be replayed on in seconds.

    python benchmarks/record_curves.py --data DIR --space FILE --out curves/NAME.csv [--trials 200] [--seeds 1 2]
        [--epochs 16] [--device cuda] [--vram auto] [--trials-per-gpu 2]

Each seed is a search of its own (random settings, no pruning) in the folder `curves/NAME/seedS`; its first trial has
the reference setting. A seed whose search was interrupted is gone on with, one that is there already is not trained
again, and the table is made of all of them: run it again with another seed to make it longer.

A row per trial and epoch: `trial`, every parameter that the space searches, `micro_batch`, `epoch`, `val_acc`,
`val_macro_f1`, `val_loss`, `train_loss`, `grad_norm_p50`, `clip_rate`, `epoch_s`. Trials that did not come to their
last epoch are left out; the screen says how many, and why.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune_cropshield import open_search, search
from tune_cropshield.api.results import SearchResults
from tune_cropshield.config.places import find_space
from tune_cropshield.config.space import SETTINGS, SearchSettings, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.search.endings import FINISHED
from tune_cropshield.search.folder import trial_folder

METRICS = ("val_acc", "val_macro_f1", "val_loss", "train_loss", "grad_norm_p50", "clip_rate", "epoch_s")


def recording(space: SearchSpace, arguments: argparse.Namespace, seed: int) -> SearchSpace:
    """Returns the space with a search of random settings, each trained to its last epoch; no starting points."""
    epochs = arguments.epochs or space.search.epochs
    settings = SearchSettings(
        trials=arguments.trials,
        epochs=epochs,
        sampler="random",
        pruning="none",
        seed=seed,
        vram=arguments.vram,
        device=arguments.device,
        trials_per_gpu=arguments.trials_per_gpu,
    )
    return space.model_copy(update={"search": settings, "start": ()})


def record(arguments: argparse.Namespace, seed: int, folder: Path) -> None:
    """Trains the trials of one seed that `folder` does not hold yet."""
    if (folder / SETTINGS).exists():
        search(out=folder, resume=True)
    else:
        space = load_space(find_space(arguments.space))
        search(data=arguments.data, space=recording(space, arguments, seed), out=folder, from_scratch=True)


def rows_of(recorded: SearchResults, first: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Returns the table's rows of one search, its trials numbered from `first`, and how those left out had ended."""
    assert recorded.settings is not None
    epochs, searched = recorded.settings.search.epochs, list(recorded.settings.space)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for trial in recorded.trials:
        if trial["outcome"] != FINISHED or trial["epochs"] != epochs:
            left_out[trial["outcome"]] += 1
            continue
        config = read_config(trial_folder(recorded.folder, trial["trial"]))
        parameters = {name: _spelled(trial[name]) for name in searched}
        for line in recorded.curves:
            if line["trial"] == trial["trial"]:
                rows.append(
                    {
                        "trial": first,
                        **parameters,
                        "micro_batch": config.trial.pair[0],
                        "epoch": line["epoch"],
                        **{name: _spelled(line[name]) for name in METRICS},
                    }
                )
        first += 1
    return rows, left_out


def _spelled(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) and not value.is_integer() else value


def write_table(path: Path, searches: Sequence[SearchResults]) -> tuple[int, Counter[str]]:
    """Writes the table of several searches, and returns how many trials it holds and how those left out had ended.

    Raises ValueError where the searches are not of the same parameters and epochs.
    """
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    count, kinds = 0, set()
    for recorded in searches:
        assert recorded.settings is not None
        kinds.add((tuple(recorded.settings.space), recorded.settings.search.epochs))
        of_search, others = rows_of(recorded, count)
        rows += of_search
        left_out += others
        count = rows[-1]["trial"] + 1 if rows else 0
    if len(kinds) > 1:
        raise ValueError(f"the searches of a table must be of the same parameters and epochs, but got {sorted(kinds)}")
    if not rows:
        raise ValueError(f"no trial came to its last epoch: {dict(left_out)}")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return count, left_out


def main() -> None:
    """Records, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of photographs per class; left out, synthetic leaves")
    parser.add_argument("--space", required=True, help="a search-space file, or a shipped one's name")
    parser.add_argument("--out", type=Path, required=True, help="the table, a .csv")
    parser.add_argument("--trials", type=int, default=200, help="of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of the space's")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--vram", default="auto")
    parser.add_argument(
        "--trials-per-gpu", default="auto", type=lambda text: text if text == "auto" else int(text), metavar="N|auto"
    )
    arguments = parser.parse_args()
    searches = arguments.out.with_suffix("")
    for seed in arguments.seeds:
        record(arguments, seed, searches / f"seed{seed}")
    recorded = [open_search(folder.parent) for folder in sorted(searches.glob(f"seed*/{SETTINGS}"))]
    count, left_out = write_table(arguments.out, recorded)
    others = ", ".join(f"{number} {outcome}" for outcome, number in left_out.most_common()) or "none"
    print(f"{arguments.out}: {count} trials of {recorded[0].settings.search.epochs} epochs; left out: {others}")


if __name__ == "__main__":
    main()
