"""`--resume` with the arguments of the start: which search is meant, and what is told where something differs.

No Ray runtime, nothing is trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.arguments import command_line
from tune_cropshield.api.resume import finished_line, is_finished, resumed_search
from tune_cropshield.api.space import new_space
from tune_cropshield.cli import main
from tune_cropshield.config.differences import differences, is_same
from tune_cropshield.config.domain import Domain
from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.dataset import open_data
from tune_cropshield.errors import UserError
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.context import Search, begin_search
from tune_cropshield.search.folder import is_running, locked, save_settings
from tune_cropshield.search.launches import STARTS
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.resources import divide
from tune_cropshield.search.same_search import SPELLED, check_same
from tune_cropshield.search.state import State, write_end
from tune_cropshield.search.trial_settings import effective_batches
from tune_cropshield.search.views.view import SearchView

RUNS = Path("results/runs")
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-5, 1e-1]}
max_norm = {choice = ["none", 1, 2.5]}
[baseline]
lr = 1e-4
[search]
trials = 3
"""


@pytest.fixture(autouse=True)
def here(drawn_leaves: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photographs in `leaves` and a space in `space.toml`."""
    (home / "work").mkdir()
    monkeypatch.chdir(home / "work")
    shutil.copytree(drawn_leaves, "leaves")
    Path("space.toml").write_text(SPACE)
    return home


def begin(name: str, began: str = "2026-11-28T10:00:00+0000", **given: Any) -> Search:
    """Begins a search below results/runs, as `search` does with these arguments at this time."""
    cache = Path.cwd().parent / "cache" / "tune_cropshield"
    space = new_space(given)
    data = open_data(space.data, {32}, cache)
    found = Prepared(space, data, plan_for_cpu(effective_batches(space)), divide("cpu", 1, 8), None, cache)
    folder = RUNS / name
    folder.mkdir(parents=True)
    command = command_line("search", **given, no_baseline=given.get("baseline") is False)
    search = begin_search(found, folder, SearchView(), resume=False, command=command)
    line = json.loads((folder / STARTS).read_text())
    (folder / STARTS).write_text(json.dumps(line | {"started": began}) + "\n")
    return search


def end(search: Search) -> None:
    """Leaves what a search leaves that has come to its end."""
    for _ in range(search.space.search.trials):
        search.study.tell(search.study.ask().number, 0.5)
    write_end(search.folder, State("finished"))


def meant(**given: Any) -> str:
    """The folder of the search that `--resume` goes on with."""
    return resumed_search(None, given, SearchView()).folder.name


def refusal(out: Path | None = None, **given: Any) -> str:
    with pytest.raises(UserError) as refused:
        resumed_search(out, given, SearchView())
    return str(refused.value)


def test_the_arguments_of_the_start_are_no_difference_and_the_search_is_named() -> None:
    begin("a", data="leaves", space="space.toml", epochs=4, seed=3, image_size=32, baseline=False, from_scratch=True)
    again = {"data": str(Path("leaves").absolute()), "space": Path("../work/space.toml"), "epochs": 4, "seed": 3}

    resumed = resumed_search(None, {**again, "baseline": False, "from_scratch": True, "trials": 9}, SearchView())

    assert resumed.folder == RUNS / "a"
    assert resumed.note == "continuing results/runs/a, begun 2026-11-28 10:00: 0 of 9 trials have ended"
    assert (resumed.space.search.trials, resumed.space.search.epochs) == (9, 4)
    assert resumed_search(RUNS / "a", again, SearchView()).space.search.trials == 3
    assert resumed_search(RUNS / "a", {}, SearchView()).space == load_space(RUNS / "a" / "search.toml")


def test_all_that_differs_is_told_by_name_with_both_values_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    begin("a", data="leaves", space="space.toml", epochs=2)
    told = "epochs (2 then, 4 now); seed (0 then, 3 now); baseline (true then, false now)"

    assert refusal(data="leaves", epochs=4, seed=3, baseline=False) == (
        "--resume: no search in results/runs has these settings. The nearest is results/runs/a, begun 2026-11-28 "
        f"10:00: {told}. To continue it, leave out --epochs --seed --no-baseline; for a new search, leave out "
        "--resume"
    )
    flags = ["--data", "leaves", "--epochs", "4", "--seed", "3", "--no-baseline"]
    assert main(["search", "--out", str(RUNS / "a"), "--resume", *flags]) == 2
    assert capsys.readouterr().err == (
        f"error: results/runs/a was begun with other settings: {told}. To continue it, leave "
        "out --epochs --seed --no-baseline; or start a new search with another --out\n"
    )


def test_a_line_that_was_removed_from_the_space_is_told() -> None:
    Path("space.toml").write_text(f"{SPACE}seed = 7\nreduction_factor = 3\n[data]\nval_share = 0.2\n")
    begin("a", space="space.toml", data="leaves", epochs=4)
    assert meant(space="space.toml") == "a"

    Path("space.toml").write_text(SPACE.replace("[baseline]\nlr = 1e-4\n", ""))

    told = refusal(RUNS / "a", space="space.toml")
    assert "val_share (0.2 then, 0.1 now)" in told
    assert "seed (7 then, 0 now)" in told
    assert "reduction_factor (3.0 then, 2.0 now)" in told
    assert "[baseline]: lr (0.0001 then, nothing now)" in told
    assert "epochs" not in told  # came as a flag


def test_the_settings_of_a_space_that_was_changed_are_told_and_another_spelling_is_none(here: Path) -> None:
    begin("a", space="space.toml", data="leaves", epochs=2)
    same = SPACE.replace("[1e-5, 1e-1]", "[0.00001, 0.1]").replace("1, 2.5]", "1.0, 2.5]")
    Path("space.toml").write_text(same + "reduction_factor = 2\nbaseline = true\n")
    assert meant(space="space.toml", epochs=2, vram="auto") == "a"
    assert meant(space="space.toml") == "a"  # --epochs 2 may be left out

    other = same.replace('model = "tiny_cnn"', 'model = "tiny_cnn"\nlabel_smoothing = 0.1').replace("1.0, 2.5", "1.0")
    Path("space.toml").write_text(other + "reduction_factor = 3\n")
    told = (
        "label_smoothing (0.0 then, 0.1 now); max_norm (one of none, 1, 2.5 then, one of none, 1.0 now); "
        "reduction_factor (2.0 then, 3.0 now)"
    )
    assert told in refusal(space="space.toml")
    assert "leave out --space" in refusal(space="space.toml")


def test_what_a_space_tries_first_and_measures_against_is_compared_where_it_says_so() -> None:
    with_start = SPACE + "[[start]]\nlr = 1e-3\n"
    Path("space.toml").write_text(with_start)
    begin("a", space="space.toml", data="leaves")
    assert meant(space="space.toml") == "a"

    Path("space.toml").write_text(with_start.replace("lr = 1e-4", "lr = 1e-2"))
    assert "settings: [baseline]: lr (0.0001 then, 0.01 now). To" in refusal(RUNS / "a", space="space.toml")
    Path("space.toml").write_text(with_start.replace("lr = 1e-3", "lr = 2e-3"))
    assert "[[start]] 1: lr (0.001 then, 0.002 now)" in refusal(space="space.toml")
    Path("space.toml").write_text(SPACE)
    assert (
        meant(space="space.toml") == "a"
    )  # it names no [[start]] any more: those that are usual then need not be the same


def test_a_default_of_another_version_is_no_difference_and_a_line_that_was_deleted_is_one() -> None:
    search = begin("a", data="leaves", space="space.toml")
    settings = search.space.search.model_copy(update={"baseline": False, "reduction_factor": 3.0})
    then = search.space.model_copy(update={"search": settings, "trial": {**search.space.trial, "augment": "none"}})
    save_settings(RUNS / "a", then, "again")

    assert refusal(RUNS / "a", space="space.toml").startswith(
        "results/runs/a was begun with other settings: augment (none then, moderate now). To continue it"
    )
    Path("space.toml").write_text(SPACE.replace("image_size", 'augment = "none"\nimage_size'))
    assert meant(space="space.toml") == "a"


def test_values_are_compared_and_not_how_they_are_written(here: Path) -> None:
    assert is_same("vram", "8GB", "8 GiB") and not is_same("vram", "8GB", "9GB") and not is_same("vram", "auto", "lots")
    assert is_same("warmup_epochs", 3, 3.0) and not is_same("ema", 1, True)
    assert is_same("pretrained", str(here / "work" / "w.pt"), "../work/w.pt")
    assert is_same("lr", Domain(log=(1, 2)), Domain(log=(1.0, 2.0)))
    assert not is_same("lr", Domain(log=(1, 2)), Domain(uniform=(1, 2)))
    assert differences({"lr": Domain(log=(1.00000001, 2))}, {"lr": Domain(log=(1, 2))})[0].startswith("lr (log=(1.0000")
    assert differences({"a": 1, "b": None}, {"b": "x", "a": 1}) == ["b (nothing then, x now)"]


def test_of_several_the_newest_that_is_not_finished_is_meant_else_the_newest() -> None:
    first = begin("first", "2026-11-28T10:00:00+0000", data="leaves", space="space.toml")
    second = begin("second", "2026-11-28T11:00:00+0000", data="leaves", space="space.toml")
    begin("others", "2026-11-28T12:00:00+0000", data="leaves", space="space.toml", epochs=4)
    arguments = {"data": "leaves", "space": "space.toml"}
    assert meant(**arguments) == "second"

    end(second)
    assert is_finished(second.folder, second.space)
    assert not is_finished(second.folder, load_space(second.folder / "search.toml", {"search": {"trials": 4}}))
    assert meant(**arguments) == "first"
    end(first)
    assert meant(**arguments) == "second"
    assert meant(**arguments, epochs=4) == "others"


def test_a_search_that_was_killed_while_it_wrote_its_results_is_not_finished() -> None:
    search = begin("a", data="leaves", space="space.toml")
    end(search)
    assert is_finished(search.folder, search.space)
    (search.folder / "end.json").unlink()
    assert not is_finished(search.folder, search.space)


def test_photographs_that_have_moved_are_known_by_their_content(here: Path) -> None:
    begin("a", data="leaves", space="space.toml")
    moved = Path("leaves").rename(here / "elsewhere")

    assert resumed_search(None, {"data": moved, "space": "space.toml"}, SearchView()).space.data.dir == str(moved)

    gone = min((moved / "rust").iterdir())
    gone.unlink()
    assert refusal(data=moved) == (
        f"--resume: no search in results/runs has these settings. The nearest is results/runs/a, begun 2026-11-28 "
        f"10:00: 1 photograph is gone: rust/{gone.name} (in {moved}). To continue it, put the photographs back as "
        "they were; for a new search, leave out --resume"
    )
    assert refusal(RUNS / "a", data=moved, epochs=4) == (
        f"results/runs/a was begun with other settings: epochs (25 then, 4 now); 1 photograph "
        f"is gone: rust/{gone.name} (in {moved}). To continue it, leave out --epochs and put the photographs back as "
        "they were; or start a new search with another --out"
    )


def test_other_photographs_at_the_same_place_are_named_before_any_is_decoded() -> None:
    begin("a", data="leaves", space="space.toml")
    shutil.rmtree("leaves")
    assert main(["sample-data", "leaves", "--classes", "2", "--per-class", "10", "--image-size", "32"]) == 0
    there = Path("leaves").absolute()

    assert refusal(RUNS / "a") == (
        f"{there}: since this search was begun, all 120 photographs are gone, and 20 others are there. Put them back "
        "as they were, or start a new search with another --out"
    )
    assert "all 120 photographs are gone, and 20 others are there" in refusal(data="leaves")


def test_a_longer_time_budget_has_more_trials_where_they_were_as_many_as_the_first_one_held() -> None:
    begin("a", data="leaves", model="tiny_cnn", image_size=32, epochs=2, time_budget="1h")
    chosen = load_space(RUNS / "a" / "search.toml").search.trials

    def trials(**given: Any) -> int:
        return resumed_search(None, given, SearchView()).space.search.trials

    assert trials() == trials(time_budget="60m") == trials(time_budget="30m") == chosen
    assert trials(time_budget="2h") == 2 * chosen
    assert trials(time_budget="2h", trials=7) == 7


def test_arguments_that_are_no_setting_are_known_by_the_first_start() -> None:
    begin("plain", "2026-11-28T10:00:00+0000", data="leaves", space="space.toml")
    begin("quick", "2026-11-28T09:00:00+0000", data="leaves", space="space.toml", quick=True)

    assert meant(data="leaves", space="space.toml", quick=True) == "quick"
    assert meant(data="leaves", space="space.toml") == "plain"
    assert "quick (not given then, true now)" in refusal(RUNS / "plain", data="leaves", quick=True)
    resumed_search(RUNS / "quick", {"data": "leaves"}, SearchView())  # it may be left out


def test_a_search_that_runs_is_told_and_not_joined() -> None:
    begin("a", data="leaves", space="space.toml")
    with locked(RUNS / "a"):
        assert refusal(data="leaves") == "a search is running in results/runs/a: wait until it ends, or stop it"
        assert refusal(RUNS / "a") == "a search is running in results/runs/a: wait until it ends, or stop it"


def test_weights_to_start_from_that_were_changed_are_named(here: Path) -> None:
    Path("w.pt").write_bytes(b"first")
    Path("space.toml").write_text(SPACE.replace("image_size = 32", 'image_size = 32\npretrained = "w.pt"'))
    search = begin("a", data="leaves", space="space.toml")
    check_same(search.study, search.folder, search.space, search.data.store)

    Path("w.pt").write_bytes(b"second")
    with pytest.raises(UserError, match=r"^since this search was begun, w\.pt has changed: put it back as it was, or "):
        check_same(search.study, search.folder, search.space, search.data.store)


def test_a_setting_that_an_earlier_version_did_not_know_has_its_default() -> None:
    search = begin("a", data="leaves", space="space.toml")
    spelled = json.loads(search.study.user_attrs[SPELLED])
    del spelled["trial"]["agc"], spelled["data"]["fit"]
    search.study.set_user_attr(SPELLED, json.dumps(spelled))
    search.study.set_user_attr("settings", "of an earlier version")

    check_same(search.study, search.folder, search.space, search.data.store)
    spelled["trial"]["lr"] = 0.5
    search.study.set_user_attr(SPELLED, json.dumps(spelled | {"space": {}}))
    with pytest.raises(UserError, match=r"lr \(0\.5 then, 1e-05 to 0\.1, logarithmic now\)"):
        check_same(search.study, search.folder, search.space, search.data.store)


def test_a_resumed_search_runs_from_before_its_photographs_are_decoded() -> None:
    begin("a", data="leaves", space="space.toml")
    held: dict[str, bool] = {}

    class Looks(SearchView):
        @contextmanager
        def steps(self, label: str) -> Iterator[Any]:
            held[label] = is_running(RUNS / "a")
            if label == "decoding photographs":
                raise UserError("that is enough")
            yield lambda done, total: None

    with pytest.raises(UserError, match="that is enough"):
        tc.search(out=RUNS / "a", resume=True, progress=Looks())

    assert held["decoding photographs"]
    assert not is_running(RUNS / "a")


@pytest.mark.parametrize(
    ("why", "budget", "more"),
    [
        ("", {}, "--trials 6"),
        ("", {"time_budget": "5m"}, "--trials 6 --time-budget 600s"),  # all trials are done before the time is over
        ("the time budget is used up", {"time_budget": "5m"}, "--time-budget 600s"),
        ("another 9 trials are expected to gain at most 0.1 points", {}, "--no-stop-when-flat"),
    ],
)
def test_what_extends_a_finished_search_depends_on_what_ended_it(why: str, budget: dict[str, str], more: str) -> None:
    search = begin("a", data="leaves", space="space.toml", **budget)
    end(search)
    write_end(search.folder, State("finished", why))

    line = finished_line(RUNS / "a", search.space)

    assert line.endswith(f" search --out results/runs/a --resume {more}")
