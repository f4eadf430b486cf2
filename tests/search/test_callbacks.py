"""What the search does at Ray Tune's events."""

from __future__ import annotations

import pickle
import threading
from typing import Any

from tune_cropshield.search.callbacks import AtFirstEpoch


def test_at_the_first_epoch_other_work_is_done_once_beside_the_search() -> None:
    done, proceed = [], threading.Event()

    def work() -> None:
        proceed.wait(10)
        done.append(threading.current_thread())

    callback = AtFirstEpoch(work)
    callback.wait()  # for nothing, before there is an epoch
    nobody: Any = None
    for _ in range(3):
        callback.on_trial_result(1, [], nobody, {})  # returns although the work waits
    assert not done
    proceed.set()
    callback.wait()
    assert len(done) == 1 and done[0] is not threading.main_thread()
    pickle.dumps(callback)  # as Ray does
