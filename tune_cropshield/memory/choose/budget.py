"""How much GPU memory we may take, and how each process is held to its share."""

from __future__ import annotations

from dataclasses import dataclass

from tune_cropshield.config.units import parse_budget
from tune_cropshield.device import Card
from tune_cropshield.errors import DeviceError

# The driver's context with PyTorch's kernels, cuBLAS and cuDNN loaded: outside the allocator. 0.4 to 0.6 GiB are usual;
# a measured plan measures it.
CONTEXT_MIB = 500.0
# Left to others of what is free now: browsers and desktops take and give back about as much while a search runs.
MARGIN_MIB = 256.0
# A card sold as 8 GB shows 8188 MiB: an amount counts as above the card only beyond this.
NOMINAL_OVER_SHOWN = 1.02


@dataclass(frozen=True)
class Budget:
    """Memory for all our processes on one card together. context_mib: what each takes outside its allocator.

    notes: what a reader should know of how the total came about.
    """

    total_mib: float
    context_mib: float = CONTEXT_MIB
    notes: tuple[str, ...] = ()

    def share_mib(self, num_trials: int = 1) -> float:
        """Returns what the allocator of one of `num_trials` processes may reserve.

        It is 0 when their contexts alone take all.
        """
        return max(self.total_mib / num_trials - self.context_mib, 0.0)


def resolve_budget(text: str, card: Card | None) -> Budget:
    """Returns the budget that "8GB", "rtx4060-laptop" or "auto" stands for on `card`.

    card: None where there is no GPU, or none is to be touched.

    On a real card no budget exceeds what is free now less MARGIN_MIB; a note says so where that lowers it. Raises
    ConfigError for a text that is no budget, DeviceError for "auto" without a GPU and for a budget above the card.
    """
    amount = parse_budget(text)
    if card is None:
        if amount is None:
            raise DeviceError(
                "a budget of auto takes what is free on the GPU, and there is none here: give an amount, like 8GB"
            )
        return Budget(amount.ours_mib)
    free_mib = max(card.free_mib - MARGIN_MIB, 0.0)
    if amount is None:
        return Budget(
            free_mib,
            notes=(
                f"{card.name}: {card.free_mib:.0f} MiB are free now; {MARGIN_MIB:.0f} of them are left to other "
                "programs",
            ),
        )
    if amount.card_mib > card.total_mib * NOMINAL_OVER_SHOWN:
        raise DeviceError(
            f"a budget of {text} ({amount.card_mib:.0f} MiB) is above the GPU's memory: {card.name} has "
            f"{card.total_mib:.0f} MiB"
        )
    if amount.ours_mib <= free_mib:
        return Budget(amount.ours_mib)
    note = f"{card.name}: only {card.free_mib:.0f} MiB are free now, so the budget is {free_mib:.0f} MiB and not {text}"
    return Budget(free_mib, notes=(note,))
