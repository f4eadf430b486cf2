"""Which signals ask a process to end, and how often one is heard; in processes of their own, with real signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAD = """
import os, signal, sys, time
from tune_cropshield.signals import ending_afterwards, ending_signals, on_ending_signal

def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
    time.sleep(0.05)
"""


def told(code: str, *before: str) -> list[str]:
    """Returns the lines that a program says, which is started by the words `before`."""
    done = subprocess.run(
        [*before, sys.executable, "-c", HEAD + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_ctrl_c_sigterm_and_the_hang_up_are_heard_but_not_the_hang_up_under_nohup() -> None:
    assert told("print(*sorted(ending_signals()))") == ["1 2 15"]
    assert told("print(*sorted(ending_signals()))", "nohup") == ["2 15"]


def test_a_signal_to_the_process_and_its_group_is_one_wish_and_a_later_one_another() -> None:
    code = """
wishes = []
with on_ending_signal(lambda: wishes.append(1)):
    send(signal.SIGTERM); send(signal.SIGTERM, signal.SIGHUP); send(signal.SIGINT)
    print(len(wishes))
    time.sleep(1.0)
    send(signal.SIGTERM)
    print(len(wishes))
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert told(code) == ["1", "2", "True True"]


def test_what_comes_in_a_block_that_must_not_be_disturbed_is_heard_at_its_end() -> None:
    code = """
wishes = []
with on_ending_signal(lambda: wishes.append(1)):
    with ending_afterwards():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # as Ray does
        send(signal.SIGINT)
        print(len(wishes))
    print(len(wishes))
    time.sleep(1.0)
    send(signal.SIGTERM)
    print(len(wishes))
"""
    assert told(code) == ["0", "1", "2"]


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_a_second_wish_in_such_a_block_ends_it_at_once(second: str) -> None:
    code = f"""
try:
    with on_ending_signal(lambda: None), ending_afterwards():
        send(signal.SIGTERM)
        time.sleep(1.0)
        send(signal.{second})
        print("still here")
except KeyboardInterrupt:
    print("ended")
"""
    assert told(code) == ["ended"]
