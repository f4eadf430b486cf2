"""Which earlier searches are learnt from, and how they are read: real journals of a few trials."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from begun_search import Photographs, begun, prepared
from optuna.trial import TrialState, create_trial

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.errors import UserError
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.context import begin_search
from tune_cropshield.search.earlier import RECORD, learn, read_knowledge, read_past, save_knowledge
from tune_cropshield.search.endings import DIVERGED, FAILED, FINISHED, OUT_OF_MEMORY, OUTCOME, PRUNED, REASON
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.journal import open_study
from tune_cropshield.search.knowledge import Knowledge, PastTrial
from tune_cropshield.search.trial_settings import distributions
from tune_cropshield.search.views.view import SearchView

AXES: dict[str, Any] = {"lr": {"log": [1e-5, 1e-1]}, "effective_batch": {"choice": [16, 32]}}
STATES = {FINISHED: TrialState.COMPLETE, FAILED: TrialState.FAIL, None: TrialState.RUNNING}
Row = tuple[float, int, dict[int, float], str | None]  # lr, effective batch, {epoch: best so far}, outcome
TWO: tuple[Row, ...] = ((1e-4, 32, {1: 0.2, 2: 0.3}, FINISHED), (3e-3, 16, {1: 0.4, 2: 0.7}, FINISHED))


def space(searched: dict[str, Any] | None = None, pairs: str = "fastest", **trial: Any) -> SearchSpace:
    tables = {"trial": {"model": "tiny_cnn", "image_size": 32, **trial}, "space": searched or AXES}
    return space_from({**tables, "search": {"pairs": pairs}}, {}, "space.toml")


def search(folder: Path, *rows: Row, of: SearchSpace | None = None, reason: str = "") -> Path:
    """Writes an earlier search of these trials, by the program's own code, and returns its folder."""
    folder.mkdir(parents=True)
    of = of or space()
    save_settings(folder, of, "python -m tune_cropshield search --space search.toml")
    axes, study = distributions(of, plan_for_cpu((16, 32))), open_study(folder)
    for lr, batch, best_so_far, outcome in rows:
        known = {"lr": lr, "effective_batch": batch, "pair": f"16x{batch // 16}", "optimizer": "adamw", "momentum": 0.5}
        study.add_trial(
            create_trial(
                params={name: known[name] for name in axes},
                distributions=axes,
                state=STATES.get(outcome, TrialState.PRUNED),
                value=max(best_so_far.values()) if outcome == FINISHED else None,
                intermediate_values=best_so_far,
                user_attrs={**({OUTCOME: outcome} if outcome else {}), **({REASON: reason} if reason else {})},
            )
        )
    return folder


def test_an_earlier_search_is_read_as_its_trials_and_what_was_the_same_in_all(tmp_path: Path) -> None:
    rows = (*TWO, (1e-1, 16, {1: 0.1}, PRUNED), (5e-2, 16, {}, DIVERGED), (6e-2, 16, {1: 0.9}, FAILED))
    past = read_past(search(tmp_path / "a", *rows, of=space(weight_decay=0.02)), space())

    assert past.trials == (
        PastTrial({"lr": 1e-4, "effective_batch": 32}, {1: 0.2, 2: 0.3}),
        PastTrial({"lr": 3e-3, "effective_batch": 16}, {1: 0.4, 2: 0.7}),
        PastTrial({"lr": 1e-1, "effective_batch": 16}, {1: 0.1}, finished=False),
        PastTrial({"lr": 5e-2, "effective_batch": 16}, {}, finished=False, failed=True),
        PastTrial({"lr": 6e-2, "effective_batch": 16}, {1: 0.9}, finished=False, failed=True),
    )
    assert (past.fixed["weight_decay"], past.fixed["model"], past.fixed["fit"]) == (0.02, "tiny_cnn", "crop")
    assert past.qualities == [0.7, 0.9, 0.5, 0.2, 0.2]


def test_a_pair_is_read_as_its_effective_batch(tmp_path: Path) -> None:
    past = read_past(search(tmp_path / "a", *TWO, of=space(pairs="all")), space())

    assert [trial.parameters for trial in past.trials] == [
        {"lr": 1e-4, "effective_batch": 32},
        {"lr": 3e-3, "effective_batch": 16},
    ]


def test_of_trials_in_parts_is_read_how_many_they_came_through(tmp_path: Path) -> None:
    rows: tuple[Row, ...] = (
        (1e-3, 32, {1: 0.8, 2: 0.9}, PRUNED),
        (1e-2, 32, {1: 0.8, 2: 0.9, 3: 0.9, 4: 0.7}, FINISHED),
    )
    folder = search(tmp_path / "a", *rows)
    open_study(folder).set_user_attr("part_epochs", 2)

    past = read_past(folder, space())

    assert [trial.worth for trial in past.trials] == [(1, 0.9), (2, 0.7)]


def test_what_says_nothing_about_a_setting_is_left_out(tmp_path: Path) -> None:
    rows: tuple[Row, ...] = (
        (1e-2, 32, {1: 0.5}, OUT_OF_MEMORY),
        (2e-2, 32, {1: 0.1}, None),
        (3e-2, 32, {1: 0.8}, None),
    )
    past = read_past(search(tmp_path / "a", *TWO, *rows), space())
    died = read_past(search(tmp_path / "b", (1e-2, 32, {}, FAILED), reason="its worker process died"), space())

    # of those under way, 0.1 after an epoch may still become good; 0.8 is better than half of what ended
    assert [trial.parameters["lr"] for trial in past.trials] == [1e-4, 3e-3, 3e-2]
    assert died.trials == ()


def test_the_users_own_searches_of_the_same_network_and_optimizer_are_found_without_being_named(tmp_path: Path) -> None:
    runs = tmp_path / "results" / "runs"
    for number, (name, of) in enumerate(
        {
            "old": space(),
            "new": space(image_size=64, schedule="cosine"),
            "other_network": space(model="cropshield_cnn"),
            "other_optimizer": space(optimizer="sgd"),
            "frozen": space(freeze_backbone=True),
        }.items()
    ):
        journal = search(runs / name, *TWO, of=of) / "study.journal"
        os.utime(journal, (number, number))
    (runs / "nothing").mkdir()
    (runs / "of_another_version").mkdir()
    (runs / "of_another_version" / "search.toml").write_text("[trial]\nmodle = 1\n")

    known, notes = learn(space(), [runs])

    assert known.sources == {str(runs / "new"): 2, str(runs / "old"): 2}
    assert known.starts == ({"lr": 3e-3, "effective_batch": 16},)
    assert len(known.rows) == 4
    assert notes == [
        f"learning from 2 earlier searches ({runs / 'new'}, {runs / 'old'}; 4 trials); tried first: lr 0.003, "
        "effective_batch 16 (--from-scratch turns this off)"
    ]


def test_pretrained_weights_are_another_network(tmp_path: Path) -> None:
    search(tmp_path / "a", *TWO, of=space(model="resnet18", pretrained=True))

    assert learn(space(model="resnet18"), [tmp_path])[0].sources == {}
    assert learn(space(model="resnet18", pretrained=True), [tmp_path])[0].sources == {str(tmp_path / "a"): 2}


def test_only_the_newest_of_many_searches_are_read(tmp_path: Path) -> None:
    for number in range(12):
        os.utime(search(tmp_path / f"s{number:02}", *TWO) / "study.journal", (number, number))

    known, notes = learn(space(), [tmp_path])

    assert list(known.sources) == [str(tmp_path / f"s{number:02}") for number in range(11, 1, -1)]
    assert f"{tmp_path / 's11'}, {tmp_path / 's10'}, {tmp_path / 's09'} and 7 more; 20 trials" in notes[0]


def test_trials_of_another_optimizer_are_not_learnt_from(tmp_path: Path) -> None:
    axes = {**AXES, "optimizer": {"choice": ["sgd", "adamw"]}}
    search(tmp_path / "a", *TWO, of=space(axes))

    assert learn(space(), [tmp_path])[0].sources == {str(tmp_path / "a"): 2}
    assert learn(space(optimizer="sgd"), [tmp_path])[0].sources == {}


def test_a_search_without_a_result_teaches_nothing_and_is_not_mentioned(tmp_path: Path) -> None:
    search(tmp_path / "a")
    search(tmp_path / "b", (1e-3, 16, {}, FAILED), (1e-2, 16, {}, FAILED))

    assert learn(space(), [tmp_path]) == (Knowledge(), [])


def test_a_damaged_journal_is_passed_over_with_a_note_where_it_was_found_and_refused_where_named(
    tmp_path: Path,
) -> None:
    journal = search(tmp_path / "a", *TWO) / "study.journal"
    search(tmp_path / "b", *TWO)
    journal.write_bytes(b"nonsense\n" + journal.read_bytes())

    known, notes = learn(space(), [tmp_path])

    assert list(known.sources) == [str(tmp_path / "b")]
    assert notes[0].startswith(f"{journal} is damaged: ") and notes[0].endswith(": this search learns nothing from it")
    with pytest.raises(UserError, match="is damaged"):
        learn(space(), [], [tmp_path / "a"])


def test_a_search_that_is_named_is_learnt_from_whatever_its_network_and_alone(tmp_path: Path) -> None:
    other = search(tmp_path / "other", *TWO, of=space(model="cropshield_cnn"))
    search(tmp_path / "same", *TWO)

    known, _ = learn(space(), [], [tmp_path / "same" / ".." / "other", other])

    assert known.sources == {str(other): 2}


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (
            space({"momentum": {"uniform": [0.1, 0.9]}}, optimizer="sgd"),
            "has nothing in common with this search: it searched momentum, this one searches effective_batch, lr",
        ),
        (
            space(optimizer="sgd"),
            "its optimizer is sgd, this search's is adamw, and learning rates of the two cannot be compared",
        ),
    ],
)
def test_a_search_that_can_teach_nothing_is_refused(tmp_path: Path, of: SearchSpace, message: str) -> None:
    folder = search(tmp_path / "a", *TWO, of=of)

    with pytest.raises(UserError) as told:
        learn(space(), [], [folder])

    assert str(told.value) == f"--learn-from {folder}: {message}"


def test_a_folder_that_is_no_search_and_one_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: is not a search folder \(search.toml is missing\)"):
        learn(space(), [], [tmp_path / "none"])
    with pytest.raises(UserError, match="fewer than two of its trials have a result: nothing to learn from"):
        learn(space(), [], [search(tmp_path / "a", (1e-3, 16, {1: 0.5}, FINISHED))])


def test_reading_touches_no_file(tmp_path: Path) -> None:
    folder = search(tmp_path / "a", *TWO)
    with open(folder / "study.journal", "ab") as journal:
        journal.write(b'{"op_code": 5, ')  # as while a search writes there
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}

    assert learn(space(), [tmp_path])[0].sources == {str(folder): 2}
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_what_was_learnt_is_kept_and_read_back(tmp_path: Path) -> None:
    search(tmp_path / "a", *TWO)
    known, _ = learn(space(), [tmp_path])
    (tmp_path / "b").mkdir()

    save_knowledge(tmp_path / "b", known)
    save_knowledge(tmp_path / "a", Knowledge())

    assert read_knowledge(tmp_path / "b") == known
    assert read_knowledge(tmp_path / "a") == Knowledge() and not (tmp_path / "a" / RECORD).exists()
    (tmp_path / "b" / RECORD).write_text(json.dumps({"sources": {}}))
    with pytest.raises(UserError, match=r"learned_from.json is damaged"):
        read_knowledge(tmp_path / "b")


def test_a_resumed_search_knows_what_it_knew_though_the_earlier_one_is_gone(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    found = prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml")
    known = Knowledge({"gone": 2}, ({"lr": 3e-3},), (({"lr": 3e-3, "weight_decay": 1e-3}, 0.75),))
    (tmp_path / "out").mkdir()

    first = begin_search(found, tmp_path / "out", SearchView(), resume=False, command=["search"], knowledge=known)
    starts = [trial.system_attrs.get("fixed_params") for trial in first.study.get_trials()]
    resumed = begun(found, tmp_path / "out")

    assert starts == [{"lr": 1e-4, "weight_decay": 1e-4}, {"lr": 3e-3}]
    assert first.knowledge == resumed.knowledge == known
    assert len(resumed.study.get_trials()) == 2
