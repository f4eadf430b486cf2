"""A training that is asked to end, by Ctrl-C for example, keeps every epoch that it has trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tune_cropshield.signals import on_ending_signal
from tune_cropshield.training.loop import CHECKPOINT_EVERY_S


class OrderlyEnd:
    """Raises KeyboardInterrupt where nothing is lost by it: at the end of a short epoch, or at once in a long one.

    Of short epochs several may have passed since the last checkpoint. At the end of each long one a checkpoint is saved
    (see `trial_epochs`), so only the epoch under way is lost.
    """

    def __init__(self, told: Callable[[], object]) -> None:
        """told: is called when the end of the epoch is waited for."""
        self._told = told
        self._asked = False
        self._epoch_s: float | None = None  # of the last epoch; None before the first

    def ask(self) -> None:
        """Asks for the end. Raises KeyboardInterrupt in an epoch of 10 s or more, and when it is asked again."""
        if self._asked or self._epoch_s is None or self._epoch_s >= CHECKPOINT_EVERY_S:
            raise KeyboardInterrupt
        self._asked = True
        with suppress(RuntimeError):  # what was interrupted may be writing to the terminal itself
            self._told()

    def epoch_ended(self, epoch_s: float) -> None:
        """Takes in that an epoch of so many seconds has ended. Raises KeyboardInterrupt where the end was asked for."""
        self._epoch_s = epoch_s
        if self._asked:
            raise KeyboardInterrupt


@contextmanager
def orderly_end(note: Callable[[str], object]) -> Iterator[OrderlyEnd]:
    """Inside, Ctrl-C, SIGTERM and the hang-up of the terminal ask for the end of the training.

    note: shows a line.
    """
    end = OrderlyEnd(lambda: note("stopping at the end of this epoch (press again to stop at once)"))
    with on_ending_signal(end.ask):
        yield end
