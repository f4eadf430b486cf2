"""When more trials are not worth their time: what they may still gain, against the noise of an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from tune_cropshield.search.journal import PART_EPOCHS, best_first, best_value, is_stopped
from tune_cropshield.training.bootstrap import standard_error
from tune_cropshield.training.predictions import PREDICTIONS, read_judged
from tune_cropshield.training.run_folder import network_folder

if TYPE_CHECKING:
    import optuna

    from tune_cropshield.config.space import SearchSettings
    from tune_cropshield.search.context import Search

# No search is called flat before: its first 10 trials are drawn at random, and the sampler is given as many to show
# that it has learnt something. On recorded trainings 10 trials lose up to 5 points more than 20, at times.
FEWEST_TRIALS = 20


@dataclass(frozen=True)
class Outlook:
    """What a search may still gain.

    Attributes:
        trials: so many more of them.
        gain: what they are expected to add to the best value, at most; 0.01 is a point.
        noise: the standard error of the best value, of which a gain cannot be told apart.
        photographs: that a value is measured on.
    """

    trials: int
    gain: float
    noise: float
    photographs: int

    @property
    def is_flat(self) -> bool:
        """Whether the gain is less than the noise."""
        return self.gain < self.noise

    def sentence(self) -> str:
        """Returns why a flat search ends."""
        return (
            f"another {self.trials} trials are expected to gain at most {100 * self.gain:.1f} points, less than the "
            f"noise of {self.photographs} validation photographs ({100 * self.noise:.1f} points)"
        )


def outlook(values: Sequence[float], photographs: int, noise: float | None = None) -> Outlook | None:
    """Returns what half as many trials again may gain, None where there are too few to say it.

    The best of n trials rises the more slowly the larger n is. So what the later half of the trials has added to the
    best of the earlier half is more than half as many again will add: in the order in which they were begun, since a
    sampler learns, or in the mean over all orders, whichever is more.

    Args:
        values: of each trial its best value, in the order in which they were begun; a pruned one counts with what
            it had reached.
        photographs: how many validate.
        noise: the standard error of the best value; None where the values are accuracies, of which it is known.
    """
    if len(values) < FEWEST_TRIALS:
        return None
    best, half = max(values), len(values) // 2
    gain = best - min(max(values[: len(values) - half]), _mean_best_of(values, len(values) - half))
    return Outlook(half, gain, _standard_error(best, photographs) if noise is None else noise, photographs)


def _mean_best_of(values: Sequence[float], count: int) -> float:
    """Returns the highest of `count` of the values, in the mean over all ways to choose them."""
    mean, chance_of_none_above = 0.0, 1.0
    for above, value in enumerate(sorted(values, reverse=True)):
        chosen = count / (len(values) - above)  # given that none of those above was: all places are free yet
        if chosen >= 1:
            return mean + chance_of_none_above * value
        mean += chance_of_none_above * chosen * value
        chance_of_none_above *= 1 - chosen
    raise AssertionError("count must be at least 1")


def _standard_error(accuracy: float, photographs: int) -> float:
    """Returns that of a share; one right and one wrong are added (Laplace), so that 100 % too is not without error."""
    share = (accuracy * photographs + 1) / (photographs + 2)
    return math.sqrt(share * (1 - share) / photographs)


def ended_values(study: optuna.Study) -> list[float]:
    """Returns the best value of each trial that has ended, in the order in which they were begun; failed ones are
    left out, and one without a value counts as 0. So does one in parts that has not come through all of them: what
    it reached may be luck, and it cannot win.
    """
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or is_stopped(trial)
    ]
    in_parts = PART_EPOCHS in study.user_attrs
    return [0.0 if in_parts and trial.state != TrialState.COMPLETE else max(0.0, best_value(trial)) for trial in ended]


def never_flat(settings: SearchSettings) -> str | None:
    """Returns a sentence where `stop_when_flat` is set and the search has too few trials for it, else None."""
    if not settings.stop_when_flat or settings.trials > FEWEST_TRIALS:
        return None
    return (
        f"stop_when_flat has no effect here: it ends a search after {FEWEST_TRIALS} trials at the earliest, and this "
        f"one has {settings.trials} (--trials N)"
    )


def end_if_flat(search: Search) -> None:
    """Lets a search with `stop_when_flat` begin no new trial where more are not worth it. The journal alone decides."""
    if not search.space.search.stop_when_flat or search.early_end.enough is not None:
        return
    split, folds = search.data.split, search.space.search.folds
    photographs = len(split.val) + (len(split.train) if folds > 1 else 0)  # each fold validates once
    noise = None
    if not search.space.goal.is_accuracy and (noise := _noise_of_best(search)) is None:
        return
    expected = outlook(ended_values(search.study), photographs, noise)
    if expected is not None and expected.is_flat:
        search.early_end.enough = expected.sentence()
        search.steering.begin_no_more()
        search.view.note(f"no new trial is started: {search.early_end.enough}")


def _noise_of_best(search: Search) -> float | None:
    """Returns the standard error of the best trial's value, by its kept predictions; None where they are gone.

    Of trials on folds, whose value is a mean over different photographs, it is that much smaller.
    """
    ranked = best_first(search.study)
    folder = network_folder(search.trial_folder(ranked[0].number)) if ranked else None
    error = standard_error(search.space.goal.name, read_judged(folder / PREDICTIONS) or []) if folder else None
    return error / math.sqrt(search.space.search.folds) if error is not None else None
