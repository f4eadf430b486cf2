"""What a search came to, in a few lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.outcome.export import BEST
from tune_cropshield.search.endings import OUTCOME
from tune_cropshield.search.folder import TABLE, trial_folder
from tune_cropshield.search.journal import best_trial, best_value
from tune_cropshield.training.run_folder import read_metrics


def summary_lines(
    study: optuna.Study, search_dir: Path, shown_dir: Path, guide_name: str = "the guide's setting"
) -> list[str]:
    """Returns the outcome for a person: how the trials ended, the winner beside trial 0, which is `guide_name`, and
    where the files are.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    outcomes = Counter(str(trial.user_attrs.get(OUTCOME, "unfinished")) for trial in trials)
    epochs = sum(len(read_metrics(trial_folder(search_dir, trial.number))) for trial in trials)
    lines = [
        (
            f"{len(trials)} trials: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}; "
            f"{epochs} epochs trained"
        )
    ]
    if not any(trial.intermediate_values for trial in trials):
        return [*lines, "no trial has a result"]
    best, guide = best_trial(study), trials[0]
    settings = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in best.params.items()
    )
    lines.append(f"best: trial {best.number}, val_acc {best_value(best):.4f} ({settings})")
    if guide.intermediate_values:
        gain = 100 * (best_value(best) - best_value(guide))
        how = f"{guide.user_attrs.get(OUTCOME, 'unfinished')} after {max(guide.intermediate_values)} epochs"
        lines.append(
            f"{guide_name} (trial 0, {how}): val_acc {best_value(guide):.4f}; "
            + (f"the winner gains {gain:.1f} points" if best.number != guide.number else "it is the winner")
        )
    lines.append(f"best configuration and weights: {shown_dir / BEST}    all trials: {shown_dir / TABLE}")
    return lines


def summary_facts(study: optuna.Study, search_dir: Path) -> dict[str, Any]:
    """Returns the outcome for a program: counts of the trials by their end, the winner and the guide's setting, None
    where one has no result.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    worked = any(trial.intermediate_values and trial.state != TrialState.FAIL for trial in trials)
    return {
        "dir": str(search_dir),
        "trials": len(trials),
        "outcomes": dict(Counter(str(trial.user_attrs.get(OUTCOME, "unfinished")) for trial in trials)),
        "best": _facts(best_trial(study)) if worked else None,
        "guide": _facts(trials[0]) if trials and trials[0].intermediate_values else None,
    }


def _facts(trial: FrozenTrial) -> dict[str, Any]:
    return {"trial": trial.number, "best_val_acc": best_value(trial), "parameters": trial.params}
