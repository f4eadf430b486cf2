"""Which micro-batch and accumulation make an effective batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tune_cropshield.errors import ConfigError

# Without a GPU there is no video memory to fit. A micro-batch of this many pictures fills the vector units of a core; more only misses its caches.
CPU_MICRO_BATCH = 64
SMALLEST_FOR_BATCH_NORM = 16  # below it a batch norm's statistics are too noisy (see training.batchnorm)


@dataclass(frozen=True)
class Pair:
    """One way to make an effective batch: `accumulation` micro-batches of `micro_batch` images."""

    micro_batch: int
    accumulation: int

    @property
    def effective_batch(self) -> int:
        return self.micro_batch * self.accumulation

    def __str__(self) -> str:
        return f"{self.micro_batch}x{self.accumulation}"


def parse_pair(text: str) -> Pair:
    """Returns the pair that "16x2" stands for; raises ConfigError for anything else."""
    micro_batch, _, accumulation = text.partition("x")
    if not (micro_batch.isdecimal() and accumulation.isdecimal() and int(micro_batch) and int(accumulation)):
        raise ConfigError([f"{text!r} is no pair: write micro-batch x accumulation, like 16x2"])
    return Pair(int(micro_batch), int(accumulation))


def pairs_of(effective_batch: int, largest_micro_batch: int) -> tuple[Pair, ...]:
    """Returns every pair that makes `effective_batch` with at most `largest_micro_batch` images at once, the largest micro-batch first.

    Micro-batches below 16 are left out where a larger one fits; none at all when `largest_micro_batch` is below 1.
    """
    divisors = [size for size in range(min(effective_batch, largest_micro_batch), 0, -1) if effective_batch % size == 0]
    enough = [size for size in divisors if size >= SMALLEST_FOR_BATCH_NORM] or divisors[:1]
    return tuple(Pair(size, effective_batch // size) for size in enough)


@dataclass(frozen=True)
class Plan:
    """The pairs that a search may propose, by effective batch; the first of each is the one to take when only one is wanted."""

    pairs: dict[int, tuple[Pair, ...]]

    def best(self, effective_batch: int) -> Pair:
        """Returns the pair for `effective_batch`; raises ConfigError when none fits."""
        if not self.pairs.get(effective_batch):
            fitting = [str(batch) for batch, pairs in sorted(self.pairs.items()) if pairs]
            raise ConfigError([f"no pair that fits makes an effective batch of {effective_batch}; those that do: {', '.join(fitting) or 'none'}"])
        return self.pairs[effective_batch][0]

    @property
    def effective_batches(self) -> tuple[int, ...]:
        """The effective batches that some pair makes, in ascending order."""
        return tuple(sorted(batch for batch, pairs in self.pairs.items() if pairs))


def plan_for_cpu(effective_batches: Iterable[int]) -> Plan:
    """Returns the plan without a GPU: whole batches up to 64, accumulated above."""
    return Plan({batch: pairs_of(batch, CPU_MICRO_BATCH) for batch in sorted(set(effective_batches))})
