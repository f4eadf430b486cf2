"""The signals that ask this process to end: Ctrl-C, SIGTERM and the hang-up of its terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
# `timeout`, a terminal and systemd signal a process and its group, or twice in different ways: it is one wish.
ONE_WISH_S = 1.0

_last_wish = -ONE_WISH_S


def ending_signals() -> list[int]:
    """Returns the numbers of the signals that ask this process to end.

    Those that it was started to ignore, as `nohup` does with the hang-up, are none.
    """
    numbers = [int(getattr(signal, name)) for name in NAMES if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextmanager
def on_ending_signal(act: Callable[[], object]) -> Iterator[None]:
    """Inside, `act` is called when this process is asked to end: once for all signals within a second.

    In a thread other than the main one Python lets nobody handle signals, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        global _last_wish
        now = time.monotonic()
        if now - _last_wish >= ONE_WISH_S:
            _last_wish = now
            act()

    before = {number: signal.signal(number, handle) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_afterwards() -> Iterator[None]:
    """Inside, the signals that ask for the end are only noted; at the block's end their handlers learn of the first.

    For code that takes seconds and loses a KeyboardInterrupt, or sets handlers of its own. A second wish raises
    KeyboardInterrupt at once. Handlers are afterwards the old ones.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in ending_signals()}
    came: list[tuple[int, float]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, time.monotonic()))
        if came[-1][1] - came[0][1] >= ONE_WISH_S:
            raise KeyboardInterrupt

    for number, handler in handlers.items():
        if callable(handler):  # else it ends the process by itself
            signal.signal(number, note)
    try:
        yield
    except SystemExit:  # from a handler that the block has set
        raise KeyboardInterrupt from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        handler = handlers[came[0][0]]
        assert callable(handler)
        handler(came[0][0], None)
