"""Asynchronous successive halving (ASHA; Li et al., https://arxiv.org/abs/1810.05934), one bracket, with promotion.

Trials are judged at a few pruning steps, each against all that have come to the same step, itself among them: like with
like. Those in the best `1 / reduction_factor` go on. The others stop with a checkpoint, and one of them goes on later
if it has come into that part, since worse ones came after it: nothing that was trained is lost.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from tune_cropshield.config.space import pruning_epochs

Score = tuple[float, float]  # the best so far (higher is better), and minus the validation loss, for equals


class SuccessiveHalving:
    """Decides which trials stop at a pruning step, and which of these go on after all."""

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float, parts: int = 1) -> None:
        """Takes the epochs of a trial that is never pruned, those before which none is, and the paper's eta.

        parts: of a trial; `epochs` are then those of each, and trials are compared at the ends of parts too.
        """
        self._factor = reduction_factor
        self._steps = pruning_epochs(epochs, grace_epochs, reduction_factor, parts)
        self._scores: dict[int, dict[int, Score]] = {step: {} for step in self._steps}  # step -> trial -> score

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        """Returns whether the trial stops: it has come to a pruning step, and is not among the best there.

        The step is the highest one that it has reached since it was judged last. What is trained again after a kill
        counts with what it came to then, and is not judged again.
        """
        score = value, -loss if math.isfinite(loss) else -math.inf
        if number in self._scores.get(epoch, {}):
            self._scores[epoch][number] = score
        before = self._last_step(number) or 0
        reached = [step for step in self._steps if before < step <= epoch]
        if not reached:
            return False
        self._scores[reached[-1]][number] = score
        return not self._is_among_the_best(number, reached[-1])

    def goes_on(self, stopped: Collection[int]) -> int | None:
        """Returns which of the trials that were stopped should go on by now: the best at the highest step; or None."""
        for step in reversed(self._steps):
            waiting = [
                number
                for number in stopped
                if self._last_step(number) == step and self._is_among_the_best(number, step)
            ]
            if waiting:
                return max(waiting, key=lambda number: (self._scores[step][number], -number))
        return None

    def goes_on_at_the_end(self, stopped: Collection[int], winner: int) -> int | None:
        """Returns which of those that were stopped goes on when nothing new is left to try, or None.

        It is the winner itself, else one that was ahead of the winner when it was stopped, the furthest first.
        """
        if winner in stopped:
            return winner
        ahead = [
            (step, self._scores[step][number], -number)
            for number in stopped
            if (step := self._last_step(number)) is not None
            and self._scores[step][number] > self._scores[step].get(winner, (math.inf, 0.0))
        ]
        return -max(ahead)[2] if ahead else None

    def _last_step(self, number: int) -> int | None:
        """Returns the pruning step at which a trial was judged last."""
        return max((step for step in self._steps if number in self._scores[step]), default=None)

    def _is_among_the_best(self, number: int, step: int) -> bool:
        """Tells whether a trial is in the best part at a step.

        At the first step nobody is before there is a second to compare with; later the best one always is: it has
        been compared already.
        """
        scores = self._scores[step]
        if step == self._steps[0] and len(scores) < 2:
            return False
        better = sum(score > scores[number] for score in scores.values())
        return better < max(1, int(len(scores) / self._factor))
