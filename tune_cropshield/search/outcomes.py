"""How a trial can end, and under which names that is kept."""

METRIC = "best_val_acc"  # best so far, so that pruning, the sampler and the kept weights agree
OUTCOME = "outcome"  # user attribute of a trial that has ended: one of the values below
REASON = "reason"  # user attribute: a sentence, for outcomes other than finished and pruned
FINISHED, PRUNED, DIVERGED, OUT_OF_MEMORY, FAILED = "finished", "pruned", "diverged", "out of memory", "failed"
RETIRED = "worker retired"  # in a trial's events: the process that was to train it still held memory of the one before
LADDER_STEPS = "ladder_steps"  # in a result: how often memory ran out and the trial went on with smaller micro-batches
