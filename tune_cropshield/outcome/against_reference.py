"""The winner against the reference setting: at both their ends, or by the epoch that the reference has come to.

In a short search the reference setting may have been stopped, like any other trial. Accuracies of different epochs do
not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune_cropshield.config.goals import VAL_ACC, Goal, goal_of
from tune_cropshield.search.endings import FINISHED
from tune_cropshield.training.run_folder import best_so_far


@dataclass(frozen=True)
class AgainstReference:
    """What the winner gains.

    Attributes:
        winner, reference: what each was worth: the best value of the goal.
        epoch: by this epoch, the last one of a reference setting that did not run to its end; None for both in all.
    """

    winner: float
    reference: float
    epoch: int | None
    goal: Goal = VAL_ACC

    @property
    def gain(self) -> float:
        """By how much the winner is better, in the goal's unit."""
        return self.goal.gain(self.winner, self.reference)


def against_reference(
    winner: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]], reference_outcome: str | None
) -> AgainstReference | None:
    """Returns the comparison of two trials from the lines of their metrics, None where either has none."""
    if not winner or not reference:
        return None
    own, theirs, goal = best_so_far(winner), best_so_far(reference), goal_of(winner)
    last = max(theirs)
    if reference_outcome == FINISHED:
        return AgainstReference(own[max(own)], theirs[last], None, goal)
    return AgainstReference(own[max(epoch for epoch in own if epoch <= last)], theirs[last], last, goal)
