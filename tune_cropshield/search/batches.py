"""The batches that a space's trials have. Loads nothing slow: what waits for trials is told of them before Ray starts."""

from __future__ import annotations

from tune_cropshield.space import SearchSpace

PAIR = "pair"  # the parameter "16x2" that stands for effective_batch where every pair is searched
EFFECTIVE_BATCH = "effective_batch"


def effective_batches(space: SearchSpace) -> tuple[int, ...]:
    """Returns the effective batches that trials of `space` may have."""
    if EFFECTIVE_BATCH in space.space:
        ends = space.space[EFFECTIVE_BATCH].ends
        if space.space[EFFECTIVE_BATCH].choice is None:
            return tuple(range(int(ends[0]), int(ends[1]) + 1))
        return tuple(int(value) for value in ends)
    return (space.trial_config().effective_batch,)


def mixes_somewhere(space: SearchSpace) -> bool:
    """Tells whether some trial of `space` mixes neighbours, so that micro-batches must be even."""
    trial = space.trial_config()
    searched = [space.space[name].ends for name in ("mixup", "cutmix") if name in space.space]
    return bool(trial.mixup or trial.cutmix or any(value for ends in searched for value in ends))
