"""The process in which a trial's step is measured: `python -m tune_cropshield.memory.measure.child`.

It speaks JSON, a line for each message. It reads what to measure, then one micro-batch after the other:

    {"trial": {...}, "num_classes": 22, "share_mib": 7000.0, "device": "cuda:0"}
    {"micro_batch": 32}

and writes that it is ready, then for each micro-batch its point and what the process takes beside its allocator (MiB,
null where that is not known), or why it ends:

    {"ready": true}
    {"point": {"micro_batch": 32, ...}, "context_mib": 480.0}
    {"failure": "Traceback ...", "dead": false}

`dead`: only the process's GPU context is at fault, and a new process may do better. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TextIO

PLAUSIBLE_CONTEXT_MIB = (100.0, 2000.0)  # outside, another program took or gave back memory meanwhile


def main() -> None:
    """Answers on standard output until standard input ends."""
    # Ctrl-C reaches every process of a terminal; this one is ended by its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = take_stdout()
    for answer in measured(json.loads(line) for line in sys.stdin):
        print(json.dumps(answer), file=answers, flush=True)


def take_stdout() -> TextIO:
    """Returns the stream that standard output was; from now on what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def measured(messages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the answers to `messages`, the first of which says what to measure."""
    # Seconds to import, and libraries may print: after standard output is taken.
    import torch

    from tune_cropshield.config.settings import TrialConfig
    from tune_cropshield.config.units import MIB
    from tune_cropshield.device import used_mib
    from tune_cropshield.memory.guard import cap_allocator
    from tune_cropshield.memory.measure.points import Point
    from tune_cropshield.memory.measure.step_driver import (
        TIMED_WINDOWS,
        WARM_UP_WINDOWS,
        DoesNotFit,
        measure_step,
    )
    from tune_cropshield.memory.measure.trial_step import TrialStep
    from tune_cropshield.training.gpu_errors import first_line, what_killed_context

    request = next(messages)
    trial, num_classes = TrialConfig.model_validate(request["trial"]), request["num_classes"]
    share_mib, device = request["share_mib"], torch.device(request["device"])

    def point_at(micro_batch: int) -> Point:
        cap_allocator(share_mib, device)
        num_windows = WARM_UP_WINDOWS + TIMED_WINDOWS
        found = measure_step(lambda: TrialStep(trial, num_classes, micro_batch, device, num_windows), device)
        if isinstance(found, DoesNotFit):
            return Point(micro_batch, share_mib, reason=found.reason)
        return Point(micro_batch, share_mib, found.peak_allocated_mib, found.peak_reserved_mib, found.images_per_s)

    def context() -> float | None:
        """Returns the MiB that this process has taken beside its allocator, None where that cannot be told."""
        if used_before is None:
            return None
        taken = (used_mib(device.index) or 0.0) - used_before - torch.cuda.memory_reserved(device) / MIB
        return taken if PLAUSIBLE_CONTEXT_MIB[0] <= taken <= PLAUSIBLE_CONTEXT_MIB[1] else None

    used_before = used_mib(device.index) if device.type == "cuda" else None
    context_mib = None
    yield {"ready": True}
    for message in messages:
        try:
            point = point_at(message["micro_batch"])
            context_mib = context() if context_mib is None else context_mib
        except Exception as error:
            cause = what_killed_context(error)
            failure = first_line(cause) if cause is not None else traceback.format_exc()
            yield {"failure": failure, "dead": cause is not None}
            return
        yield {"point": asdict(point), "context_mib": context_mib}


if __name__ == "__main__":
    main()
