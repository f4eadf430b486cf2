"""What a search shows: on a terminal, in a pipe, quietly, and for programs. The events are those of a real search;
nothing is trained.
"""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any

import pytest
from rich.console import Console

from tune_cropshield.search.views.choose import view_for
from tune_cropshield.search.views.json_lines import JsonLinesView
from tune_cropshield.search.views.live import LiveView
from tune_cropshield.search.views.plain import PlainView, QuietView
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.training.metrics import METRIC_NAMES

SUMMARY = ["3 trials: 1 finished, 1 pruned, 1 failed", "best: trial 0"]
FACTS = {"trials": 3, "best": {"trial": 0, "best_val_acc": 0.75}}


def line(number: int, lr: float = 1.234e-5, pair: str = "128x16") -> TrialLine:
    return TrialLine(
        number,
        {"lr": lr, "max_norm": 0.5, "weight_decay": 1e-4, "effective_batch": 2048},
        pair,
        epochs=100,
        lr=lr,
        max_norm=0.5,
    )


def epoch(number: int, val_acc: float, best: float, vram_mib: float = 0.0) -> dict[str, Any]:
    return {
        **dict.fromkeys(METRIC_NAMES, 1.0),
        "epoch": number,
        "val_acc": val_acc,
        "best_val_acc": best,
        "best_value": best,
        "best_epoch": number if val_acc == best else 1,
        "images_per_s": 12345.6,
        "peak_vram_mib": vram_mib,
    }


def play(view: SearchView, vram_mib: float = 0.0) -> SearchView:
    """Three trials: one finishes, one is pruned, one fails before its first epoch."""
    with view.steps("decoding photographs") as progress:
        progress(1, 2)
    view.begin(4, 0)
    view.trial_started(line(0))
    view.epoch_done(0, epoch(1, 0.5, 0.5, vram_mib))
    view.trial_started(line(1))
    view.epoch_done(1, epoch(1, 0.25, 0.25, vram_mib))
    view.trial_ended(1, "pruned", None)
    view.epoch_done(0, epoch(2, 0.75, 0.75, vram_mib))
    view.epoch_done(0, epoch(3, math.nan, 0.75, vram_mib))
    view.trial_ended(0, "finished", None)
    view.trial_started(line(2))
    view.trial_ended(2, "failed", "ValueError: [no] such thing")
    view.note("a note")
    return view


def screen(width: int) -> tuple[LiveView, io.StringIO]:
    text = io.StringIO()
    return LiveView(
        Console(file=text, width=width, force_terminal=True, color_system=None, legacy_windows=False, soft_wrap=True)
    ), text


def drawn(view: LiveView) -> list[str]:
    """The lines of the table as it stands now."""
    text = io.StringIO()
    Console(file=text, width=view._console.width, color_system=None).print(view._render())
    return text.getvalue().splitlines()


def test_a_pipe_gets_one_line_per_start_and_end_of_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    play(PlainView()).result(SUMMARY, FACTS)

    assert [re.sub(r", about .* left$", "", told) for told in capsys.readouterr().out.splitlines()] == [
        "decoding photographs",
        "t000 starts: lr=1.23e-05 max_norm=0.5 weight_decay=0.0001 effective_batch=2048 pair=128x16",
        "t001 starts: lr=1.23e-05 max_norm=0.5 weight_decay=0.0001 effective_batch=2048 pair=128x16",
        "t001 pruned after 1 of 100 epochs, best val_acc 0.2500; 1 of 4 trials",
        "t000 finished after 3 of 100 epochs, best val_acc 0.7500; 2 of 4 trials",
        "t002 starts: lr=1.23e-05 max_norm=0.5 weight_decay=0.0001 effective_batch=2048 pair=128x16",
        "t002 failed after 0 of 100 epochs, best val_acc nan: ValueError: [no] such thing; 3 of 4 trials",
        "a note",
        *SUMMARY,
    ]


def test_a_quiet_search_says_only_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    play(QuietView()).result(SUMMARY, FACTS)

    assert capsys.readouterr().out.splitlines() == SUMMARY


def test_json_lines_hold_one_event_each_and_no_number_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    play(JsonLinesView()).result(SUMMARY, FACTS)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    events = [json.loads(told, parse_constant=refuse) for told in capsys.readouterr().out.splitlines()]
    assert [(event["event"], event.get("trial")) for event in events] == [
        ("preparing", None),
        ("begin", None),
        ("started", 0),
        ("epoch", 0),
        ("best", 0),
        ("started", 1),
        ("epoch", 1),
        ("pruned", 1),
        ("epoch", 0),
        ("best", 0),
        ("epoch", 0),
        ("finished", 0),
        ("started", 2),
        ("failed", 2),
        ("note", None),
        ("result", None),
    ]
    assert events[2]["parameters"]["effective_batch"] == 2048
    assert (events[2]["pair"], events[2]["epochs"]) == ("128x16", 100)
    assert set(METRIC_NAMES) <= events[3].keys()
    assert events[9] == {"event": "best", "trial": 0, "best_val_acc": 0.75, "epoch": 2}
    assert events[10]["val_acc"] is None  # not a number
    assert events[13] == {
        "event": "failed",
        "trial": 2,
        "epoch": 0,
        "best_val_acc": None,
        "reason": "ValueError: [no] such thing",
    }
    assert events[15] == {"event": "result", **FACTS}


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal_and_cuts_no_column(width: int) -> None:
    view, _ = screen(width)
    view.begin(4, 0)
    view.trial_started(line(0))
    view.trial_started(line(1, lr=0.5, pair="2048x16"))
    view.epoch_done(0, epoch(100, 0.5, 0.5, vram_mib=139 * 1024))

    header, first, second, best, status, time_spent = drawn(view)

    assert header.split() == ["trial", "state", "pair", "lr", "max_norm", "epoch", "val_acc", "images/s", "VRAM"]
    assert first.split()[:10] == [
        "t000",
        "running",
        "128x16",
        "1.23e-05",
        "0.5",
        "100/100",
        "0.5000",
        "12346",
        "139.0",
        "GB",
    ]
    assert second.split()[:9] == ["t001", "starting", "2048x16", "0.5", "0.5", "0/100", "-", "-", "-"]
    assert ("weight_decay=0.0001" in first) == (
        width == 120
    )  # what has no column of its own is shown where there is room
    assert best.startswith("best so far: t000 val_acc 0.5000 (lr=1.23e-05 ")
    assert "0 of 4 trials" in status
    assert all(len(told) <= width for told in (header, first, second, best, status, time_spent))


def test_a_cpu_has_no_column_for_the_gpus_memory() -> None:
    view, _ = screen(80)
    view.begin(4, 0)
    view.trial_started(line(0))
    view.epoch_done(0, epoch(1, 0.5, 0.5))

    assert "VRAM" not in drawn(view)[0]


def test_ended_trials_stand_below_each_other_under_one_header() -> None:
    view, text = screen(80)
    play(view, vram_mib=7.9 * 1024)

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text.getvalue())  # without cursor movements
    told = [line.rstrip() for line in plain.splitlines() if line.startswith(("trial", "t0", "a note"))]
    assert [line.split()[:2] for line in told[:3]] == [["trial", "state"], ["t001", "pruned"], ["t000", "finished"]]
    assert told[1].index("0.2500") == told[2].index("0.7500")
    assert told[2].endswith("7.9 GB")
    assert told[4] == "t002 failed: ValueError: [no] such thing"  # brackets are no markup
    assert told[5] == "a note"


def test_the_status_counts_how_trials_ended_and_estimates_the_time_left() -> None:
    view, _ = screen(120)
    play(view)

    assert view.counts_text() == "1 failed, 1 pruned, 1 finished"
    *_, counts, times = drawn(view)
    assert counts.endswith("3 of 4 trials: 1 failed, 1 pruned, 1 finished")
    assert times.strip() == "0 s, about 1 s left"  # never 0 before the end


def test_a_resumed_search_knows_its_best_before_a_trial_has_run() -> None:
    view = SearchView()
    view.begin(4, 2)
    view.recall(TrialLine(0, {"lr": 0.1}, "32x1", 8, best_value=0.5), "finished")
    view.recall(TrialLine(1, {"lr": 0.2}, "32x1", 8), "failed")
    view.trial_started(line(2))
    view.epoch_done(2, epoch(1, 0.4, 0.4))

    assert view.best_text() == "best so far: t000 val_acc 0.5000 (lr=0.1)"
    assert view.outcomes == {"finished": 1, "failed": 1}


def test_a_trial_that_goes_on_is_not_told_as_the_best_again(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonLinesView()
    view.begin(4, 0)
    known = {"epoch": 50, "best_value": 0.5}
    view.recall(TrialLine(0, {"lr": 0.1}, "", 100, **known), None)
    view.trial_started(TrialLine(1, {"lr": 0.2}, "32x1", 100))
    view.epoch_done(1, epoch(1, 0.4, 0.4))
    view.trial_started(TrialLine(0, {"lr": 0.1}, "32x1", 100, **known))
    view.epoch_done(0, epoch(51, 0.3, 0.5))
    view.epoch_done(0, {**epoch(52, 0.3, 0.75), "best_epoch": 49})  # its journal was a little behind

    events = [json.loads(told) for told in capsys.readouterr().out.splitlines()]
    best = [event for event in events if event["event"] == "best"]
    assert best == [{"event": "best", "trial": 0, "best_val_acc": 0.75, "epoch": 49}]
    assert view.outcomes == {}


def test_a_long_preparation_shows_how_far_it_has_come() -> None:
    view, text = screen(80)
    with view.steps("decoding [1] photographs") as progress:
        progress(1, 2)

    assert "decoding [1] photographs" in text.getvalue()
    assert "1 of 2" in text.getvalue()


def test_a_terminal_left_in_a_hurry_gets_its_cursor_back() -> None:
    view, text = screen(80)
    with view.live():
        text.truncate(0)
        view.leave()
        assert "\x1b[?25h\n" in text.getvalue()


def test_each_view_is_shown_where_it_belongs() -> None:
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())

    assert type(view_for(terminal)) is LiveView
    assert type(view_for(pipe)) is PlainView
    assert type(view_for(terminal, quiet=True)) is QuietView
    assert type(view_for(terminal, json_lines=True)) is JsonLinesView
