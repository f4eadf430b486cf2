"""How a time budget is shared: trials first, then the final training of the winner, then the report."""

from __future__ import annotations

from dataclasses import dataclass

from tune_cropshield.config.units import describe_seconds

# Of the budget, for the trials. On few photographs a search of a hundred short trials ends where one long sensible
# training does; training the winner on is worth more than trials in twice this time.
SEARCH_SHARE = 1 / 3
FEWEST_FULL_TRIALS = (
    3  # that must fit into that share; below, a search learns nothing that a starting point does not say
)
START_UP_S = 10.0  # of Ray and the trials' processes
ENDING_SHARE, ENDING_S = 0.02, 12.0  # the trials' last epochs, table and report: of the budget, but at most so long


@dataclass(frozen=True)
class TimeBudget:
    """The time of a search, in seconds and times of time.monotonic.

    Attributes:
        total_s: of all its starts together.
        began: this start.
        spent_s: in earlier starts.
        searching_s: of these, until the last of each start's trials.
        finish: whether the winner is trained on in what the trials leave.
    """

    total_s: float
    began: float
    spent_s: float = 0.0
    searching_s: float = 0.0
    finish: bool = True

    @property
    def ends(self) -> float:
        """When everything is to be written."""
        return self.began + self.total_s - self.spent_s

    def told(self) -> str:
        """Returns in words what is left of it: "time budget: 2 h in all, 35 min used, 1 h 25 min left"."""
        used = f"time budget: {describe_seconds(self.total_s)} in all, {describe_seconds(self.spent_s)} used, "
        left_s = self.total_s - self.spent_s
        return used + (f"{describe_seconds(left_s)} left" if left_s >= 0.5 else "nothing left")

    def shares(self) -> str:
        """Returns in words what the whole of it is for."""
        total = describe_seconds(self.total_s)
        if not self.finish:
            return f"of the {total} of the time budget, all is for trials"
        trials = describe_seconds(SEARCH_SHARE * self.total_s)
        return f"of the {total} of the time budget, {trials} are for trials; then the winner is trained again, longer"

    @property
    def ending_s(self) -> float:
        """What is kept free for the end, where it is not known better."""
        return min(ENDING_SHARE * self.total_s, ENDING_S)

    @property
    def trials_end(self) -> float:
        """When no trial goes on; in the past where the trials have had their share."""
        latest = self.ends - self.ending_s
        if not self.finish:
            return latest
        return min(self.began + SEARCH_SHARE * self.total_s - self.searching_s, latest)

    def is_worth_searching(self, full_trial_s: float, trials_at_once: int, now: float) -> bool:
        """Tells whether enough trials fit to learn from them. full_trial_s: of one that is never pruned."""
        return FEWEST_FULL_TRIALS * full_trial_s <= (self.trials_end - now - START_UP_S) * trials_at_once
