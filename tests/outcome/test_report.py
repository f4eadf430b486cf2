"""report.html: what it says, and that it stays whole, small and safe. Whether it looks right is asked in
test_report_in_a_browser.py.
"""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from invented_search import GPU_PLAN, REFERENCE_SETTING, InventedTrial, invent_search, invented_trials

from tune_cropshield.api.search import report_line
from tune_cropshield.cli import main
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import append_line
from tune_cropshield.outcome.confirm import candidates
from tune_cropshield.outcome.report import write_report
from tune_cropshield.outcome.summary import summary_facts, summary_lines
from tune_cropshield.search.endings import PRUNED
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.journal import open_study, read_study
from tune_cropshield.shell import command
from tune_cropshield.training.run_folder import read_metrics


class Visible(HTMLParser):
    """The text of a page, as a reader sees it: nothing of scripts and styles. tags: every element's name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._hidden = 0
        self._parts: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    @property
    def text(self) -> str:
        return " ".join("".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self._hidden += tag in ("script", "style")
        if tag != "wbr":
            self._parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)


def read(path: Path) -> str:
    return Visible(path.read_text(encoding="utf-8")).text


def settings(**changed: object) -> dict[str, object]:
    return {**REFERENCE_SETTING, **changed}


@pytest.fixture
def cache(shared_cache: Path) -> Path:
    return shared_cache


def test_the_winner_stands_beside_the_reference_setting_with_the_gain(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    trials = [
        InventedTrial(settings(), [0.25, 0.5]),
        InventedTrial(settings(lr=1e-3), [0.5, 0.875, 0.75]),
        InventedTrial(settings(lr=2e-5), [0.1]),
    ]
    invent_search(tmp_path / "s", drawn_leaves, cache, trials)

    text = read(write_report(tmp_path / "s", cache))

    assert (
        "Trial 1 reached val_acc 0.8750 in epoch 2; the reference setting (trial 0) reached 0.5000: a "
        "gain of 37.5 points."
    ) in text
    assert "lr 0.001 0.0001" in text
    assert "micro-batch x accumulation 32 x 1 32 x 1" in text
    # 10.5 of 12 is what such an invented accuracy amounts to, and 10 is even
    assert "The winner is right on 10 of 12 validation photographs; one photograph is 8.3 points." in text
    assert "be estimated as 55.2 to 95.3 % (95 % Wilson interval)." in text
    assert "chosen with these same photographs, as the best of 3 trials" in text


def test_a_search_without_a_baseline_does_not_speak_of_a_reference_setting(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    trials = [InventedTrial(settings(), [0.25, 0.5]), InventedTrial(settings(lr=1e-3), [0.5, 0.875, 0.75])]
    folder = tmp_path / "s"
    invent_search(folder, drawn_leaves, cache, trials)
    study = open_study(folder)
    study.set_user_attr("no_baseline", True)

    text = read(write_report(folder, cache))

    assert "Trial 1 reached val_acc 0.8750 in epoch 2." in text
    assert "reference" not in text.lower() and "gain" not in text.replace("again", "")
    told = summary_lines(study, folder, folder)
    assert told[1].startswith("best: trial 1, val_acc 0.8750") and "reference" not in "\n".join(told)
    assert summary_facts(study, folder)["reference"] is None
    assert [(each.trial, each.name) for each in candidates(folder, study, 1)] == [
        (0, "the first trial"),
        (1, "the first trial"),
    ]


def test_a_search_of_which_the_reference_setting_is_the_best_says_so(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    invent_search(
        tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [0.5]), InventedTrial(settings(lr=1e-3), [0.4])]
    )

    assert "it is trial 0, the reference setting, and no other trial was better" in read(
        write_report(tmp_path / "s", cache)
    )


def test_a_search_without_a_result_has_a_report_that_says_so(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    invent_search(tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [], None)])

    text = read(write_report(tmp_path / "s", cache))

    assert "No trial has a result yet, so there is no winner." in text
    assert command("search", "--space", tmp_path / "s" / "search.toml", "--from-scratch", anywhere=True) in text


def test_a_trial_that_was_stopped_by_hand_is_told_from_those_that_the_rule_pruned(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    trials = [
        InventedTrial(settings(), [0.5] * 25),
        InventedTrial(settings(lr=2e-4), [0.3] * 2, outcome="pruned"),
        InventedTrial(settings(lr=3e-4), [0.4] * 7, outcome="pruned", reason="stopped by hand"),
    ]
    invent_search(tmp_path / "search", drawn_leaves, cache, trials)
    text = read(write_report(tmp_path / "search", cache))
    assert "3 trials: 1 trained to the end, 2 pruned (1 of them stopped by hand)." in text


def test_an_interrupted_search_shows_what_it_has(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    trials = [InventedTrial(settings(), [0.2, 0.4], None), InventedTrial(settings(lr=1e-3), [0.3], PRUNED)]
    invent_search(tmp_path / "s", drawn_leaves, cache, trials)

    text = read(write_report(tmp_path / "s", cache))

    assert "2 trials: 0 trained to the end, 1 pruned, 1 interrupted, counted as far as they got." in text
    assert "Pruning saved 24 more, 89 % of the epochs of a search without it" in text


def test_the_terminal_tells_of_an_interrupted_trial_what_the_report_tells(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    trials = [InventedTrial(settings(), [0.25, 0.5], None), InventedTrial(settings(lr=1e-3), [0.5, 0.875, 0.75])]
    invent_search(tmp_path / "s", drawn_leaves, cache, trials)
    folder = trial_folder(tmp_path / "s", 0)
    last = read_metrics(folder)[-1]
    append_line(folder / "metrics.jsonl", json.dumps({**last, "epoch": 3, "val_acc": 0.75}))  # the journal lacks it

    told = summary_lines(read_study(tmp_path / "s"), tmp_path / "s", tmp_path / "s")

    assert told[0] == "2 trials: 1 unfinished, 1 finished; 6 epochs trained"
    assert told[2] == (
        "the reference setting (trial 0, unfinished after 3 epochs): val_acc 0.7500; after as many epochs the "
        "winner had 0.8750, 12.5 points more"
    )
    assert (
        "The reference setting (trial 0, unfinished after epoch 3) had reached 0.7500, the winner 0.8750 by the "
        "same epoch: a gain of 12.5 points."
    ) in read(write_report(tmp_path / "s", cache))


@pytest.mark.slow
def test_importances_come_from_complete_trials_and_too_few_are_said_to_be_too_few(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    few = [InventedTrial(settings(lr=1e-4 * (number + 1)), [0.1 * number, 0.5]) for number in range(7)]
    pruned = [InventedTrial(settings(lr=1e-3), [0.3 + 0.01 * number], PRUNED) for number in range(20)]
    invent_search(tmp_path / "few", drawn_leaves, cache, few + pruned)
    invent_search(tmp_path / "enough", drawn_leaves, cache, [*invented_trials(60), *pruned])

    assert "needs at least 8 trials that were trained to the end, and there are 7" in read(
        write_report(tmp_path / "few", cache)
    )
    complete = sum(trial.outcome == "finished" for trial in invented_trials(60))
    assert f"from the {complete} trials that were trained to the end" in read(write_report(tmp_path / "enough", cache))


def test_memory_is_predicted_beside_measured_with_the_share_and_the_speed(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    trials = [
        InventedTrial(settings(), [0.5]),
        InventedTrial(settings(effective_batch=64), [0.6], metrics={"peak_vram_mib": 3500.0}),
    ]
    invent_search(tmp_path / "s", drawn_leaves, cache, trials, GPU_PLAN)

    text = read(write_report(tmp_path / "s", cache))

    assert (
        "Each trial may reserve 7,000 MiB of GPU memory, in addition to 500 MiB for the CUDA driver; the memory "
        "for each batch size was measured before the search."
    ) in text
    assert "The most that a trial reserved is 3,500 MiB, 50 % of its share." in text
    assert "64 64 x 1 1 3,200 MiB 3,314 MiB 3,500 MiB 50 % 2,616 2,616" in text
    assert "128 32 x 4 0 1,620 MiB 1,700 MiB – 24 % – –" in text


def test_the_time_that_was_spent_waiting_for_images_is_told(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    slow = {"epoch_s": 10.0, "data_wait_s": 6.0}
    invent_search(tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [0.5] * 25, metrics=slow)])

    text = read(write_report(tmp_path / "s", cache))

    assert "60 % of the time was spent waiting for images: loading images, not the network, limited the speed." in text
    assert "training and evaluation 1 min 40 s 40 %" in text
    assert "Pruning saved no epochs." in text


def test_where_the_time_went_is_shown_where_it_was_recorded(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    invent_search(tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [0.5])])
    parts = {"setup": 10.0, "data_wait": 0.0, "step": 60.0, "evaluation": 20.0, "checkpoint": 2.0, "report": 0.0}
    whole = {"slots": 2, "wall_s": 50.0, "parts": parts, "idle_s": 8.0}
    (tmp_path / "s" / "ledger.json").write_text(json.dumps({"whole": whole}))

    text = read(write_report(tmp_path / "s", cache))

    assert "start-up of trials 10 s 10 % waiting for images 0 s 0 % training 1 min 60 %" in text
    assert "no trial running 8 s 8.0 %" in text


def test_the_winners_mistakes_are_shown_with_pictures(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    data = invent_search(tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [0.4999])])

    page = write_report(tmp_path / "s", cache, data).read_text(encoding="utf-8")

    mistakes = int(re.search(r"Of 12 validation photographs the winner classifies (\d+) wrongly", page)[1])  # type: ignore[index]
    assert 1 <= mistakes <= 12  # the network was never trained
    assert (
        f"Evaluated again for this report, its val_acc is {1 - mistakes / 12:.4f}; in the search it was 0.4999"
        in Visible(page).text
    )
    assert page.count('src="data:image/jpeg;base64,') == 4 + mistakes  # an example of each class, too
    assert all(name in page.replace("<wbr>", "") for name in data.classes)


def test_photographs_that_are_gone_cost_only_their_section(tmp_path: Path, cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=2, per_class=12, image_size=32)
    invent_search(tmp_path / "s", leaves, cache, [InventedTrial(settings(), [0.5])])
    leaves.rename(tmp_path / "elsewhere")

    text = read(write_report(tmp_path / "s", cache))

    assert f"The winner's mistakes cannot be shown: there is no folder '{leaves}'" in text
    assert "val_acc 0.5000 in epoch 1" in text


def test_names_that_look_like_html_stay_text(tmp_path: Path, cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=2, per_class=12, image_size=32)
    for folder, name in zip(sorted(leaves.iterdir()), ["<b>blight", "<img src=x onerror=alert(1)>"], strict=True):
        folder.rename(leaves / name)
    trials = [
        InventedTrial(settings(), [0.5]),
        InventedTrial(settings(lr=1e-3), [], "failed", "</script><script>alert(1)</script>"),
    ]
    invent_search(tmp_path / "<i>search", leaves, cache, trials)

    page = write_report(tmp_path / "<i>search", cache).read_text(encoding="utf-8")
    visible = Visible(page)

    assert not {"b", "i"} & set(visible.tags)
    assert visible.tags.count("script") == page.count('<script type="application/json">') + 2  # plotly's and ours
    assert "Search report: <i>search" in visible.text
    assert "<b>blight" in visible.text
    assert "</script><script>alert(1)</script>" in visible.text
    assert all("data:image/jpeg" in tag for tag in re.findall(r"<img[^>]*>", page))


@pytest.mark.slow
def test_the_report_of_a_hundred_trials_is_at_most_8_mb_and_takes_at_most_10_seconds(
    tmp_path: Path, drawn_leaves: Path, cache: Path
) -> None:
    invent_search(tmp_path / "s", drawn_leaves, cache, invented_trials(100), GPU_PLAN)
    started = time.process_time()

    report = write_report(tmp_path / "s", cache)

    assert time.process_time() - started <= 10  # of this process, whatever else the machine does
    assert report.stat().st_size <= 8e6


def test_the_command_writes_the_report_of_a_search_and_leaves_all_else_alone(
    tmp_path: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invent_search(tmp_path / "s", drawn_leaves, home / "cache", [InventedTrial(settings(), [0.5])])
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}

    assert main(["report", str(tmp_path / "s")]) == 0

    assert capsys.readouterr().out == f"{tmp_path / 's' / 'report.html'}\n"
    after = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert set(after) - set(before) == {tmp_path / "s" / "report.html"}
    assert {path: after[path] for path in before} == before


def test_a_folder_without_a_search_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} holds no search (study.journal is missing)\n"

    open_study(tmp_path)
    with pytest.raises(UserError, match=r"no trial of the search in .* was started yet"):
        write_report(tmp_path, tmp_path / "cache")


def test_a_search_whose_report_fails_says_so_in_one_line_and_lives_on(
    tmp_path: Path, drawn_leaves: Path, home: Path
) -> None:
    data = invent_search(tmp_path / "s", drawn_leaves, home / "cache", [InventedTrial(settings(), [0.5])])
    assert report_line(tmp_path / "s", Path("s"), data) == "report: s/report.html"

    (tmp_path / "s" / "t000" / "metrics.jsonl").write_text('{"epoch": 1}\n')

    assert report_line(tmp_path / "s", Path("s"), data) == (
        f"report.html could not be written ('val_acc'); try again:  {command('report', 's')}"
    )


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, drawn_leaves: Path, cache: Path) -> None:
    invent_search(tmp_path / "s", drawn_leaves, cache, [InventedTrial(settings(), [0.5])])
    (tmp_path / "s" / "report.html").mkdir()

    with pytest.raises(RunFailure, match=r"report\.html cannot be written: "):
        write_report(tmp_path / "s", cache)

    assert not [path.name for path in (tmp_path / "s").iterdir() if path.name.endswith(".tmp")]
