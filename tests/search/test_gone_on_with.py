"""A search that is continued: where its photographs, its settings, a file of one's own or its journal have changed,
it says what has. No Ray runtime, nothing is trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from begun_search import SPACE, Photographs, begun, prepared

import tune_cropshield as tc
from tune_cropshield.api.resume import resumed_search
from tune_cropshield.data.dataset import open_data
from tune_cropshield.errors import UserError
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.views.view import SearchView


@pytest.fixture
def photos(drawn_leaves: Path, home: Path) -> Photographs:
    """A copy of the drawn leaves that may be changed."""
    return Photographs(Path(shutil.copytree(drawn_leaves, home / "photos")), home / "cache" / "tune_cropshield")


@pytest.fixture
def out(photos: Photographs, tmp_path: Path) -> Path:
    """A search that was begun, with one trial under way."""
    folder = tmp_path / "out"
    folder.mkdir()
    StudySearcher(begun(prepared(photos, tmp_path / "space.toml"), folder)).suggest("a")
    return folder


def contents(out: Path) -> dict[Path, bytes]:
    """What a search has written, but for the journal: Optuna notes in it that it was opened."""
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "study.journal"}


def refusal(photos: Photographs, out: Path, space: str = SPACE) -> str:
    """What going on is answered with."""
    before = contents(out)
    with pytest.raises(UserError) as refused:
        begun(prepared(photos, out.with_name("again.toml"), space), out)
    assert contents(out) == before  # nothing was written
    return str(refused.value)


def test_a_photograph_that_is_gone_is_named(photos: Photographs, out: Path) -> None:
    gone = min((photos.leaves / "rust").iterdir())
    gone.unlink()

    assert refusal(photos, out) == (
        f"{photos.leaves}: since this search was begun, 1 photograph is gone: rust/{gone.name}. Put them back as they "
        "were, or start a new search with another --out"
    )


def test_photographs_that_are_new_or_have_changed_are_named(photos: Photographs, out: Path) -> None:
    first, second, *others = sorted((photos.leaves / "rust").iterdir())
    for number, other in enumerate(others[:4]):
        shutil.copy(other, photos.leaves / "rust" / f"new{number}.jpg")
    shutil.copy(second, first)

    assert refusal(photos, out) == (
        f"{photos.leaves}: since this search was begun, 4 photographs are new: rust/new0.jpg, rust/new1.jpg, "
        f"rust/new2.jpg, ...; 1 photograph has changed: rust/{first.name}. Put them back as they were, or start a new "
        "search with another --out"
    )


def test_photographs_that_have_moved_are_asked_for_and_taken_where_they_are_the_same(
    photos: Photographs, out: Path, tmp_path: Path
) -> None:
    moved = photos.leaves.rename(tmp_path / "elsewhere")

    with pytest.raises(UserError) as refused:
        resumed_search(out, {"trials": 9}, SearchView())
    assert str(refused.value) == (
        f"the photographs of this search are no longer in {photos.leaves}: say where (--data DIR)"
    )

    space = resumed_search(out, {"data": str(moved), "trials": 9}, SearchView()).space
    assert (space.data.dir, space.search.trials) == (str(moved), 9)
    found = prepared(Photographs(moved, photos.cache), tmp_path / "space.toml")
    assert open_data(space.data, {32}, photos.cache).store.fingerprint == found.data.store.fingerprint
    begun(found, out)
    assert resumed_search(out, {}, SearchView()).space.data.dir == str(moved)  # and is remembered


def test_a_setting_that_was_changed_is_named(photos: Photographs, out: Path) -> None:
    other = SPACE.replace("epochs = 9", "epochs = 7").replace("1e-1]", "1e-2]")

    assert refusal(photos, out, other) == (
        "this search was begun with other settings: lr (1e-05 to 0.1, logarithmic then, 1e-05 to 0.01, logarithmic "
        "now); epochs (9 then, 7 now). Set them back, or start a new search with another --out"
    )


def test_a_file_of_ones_own_that_was_changed_is_named(photos: Photographs, tmp_path: Path) -> None:
    parts = tmp_path / "parts.py"
    text = "def steady(epochs, grace_epochs, reduction_factor):\n    return Rule()\n\nclass Rule:\n    judge = print\n"
    parts.write_text(text)
    space = SPACE + f'pruning = "{parts}:steady"\n'
    out = tmp_path / "out"
    out.mkdir()
    begun(prepared(photos, tmp_path / "space.toml", space), out)
    parts.write_text(text + "# another line\n")

    assert refusal(photos, out, space) == (
        f"this search was begun with other settings: {parts}:steady has changed. Set them back, or start a new search "
        "with another --out"
    )


@pytest.mark.parametrize("left", [None, ""], ids=["missing", "empty"])
def test_trials_without_a_journal_are_told_and_not_trained_over(
    photos: Photographs, out: Path, left: str | None
) -> None:
    (out / "study.journal").unlink()
    if left is not None:
        (out / "study.journal").write_text(left)

    assert refusal(photos, out) == (
        f"{out} holds trials (t000 to t000), but what is known of them (study.journal) is missing: put it back, or "
        "start a new search with another --out"
    )


def test_a_journal_that_knows_fewer_trials_than_there_are_is_told(photos: Photographs, out: Path) -> None:
    shutil.copytree(out / "t000", out / "t001")

    assert refusal(photos, out) == (
        f"{out / 'study.journal'} knows only 1 of the trials, t001 is there too: put this search's whole journal "
        "back, or start a new search with another --out"
    )


def test_an_address_that_is_none_is_told() -> None:
    for wrong in (1, ""):
        with pytest.raises(tc.UserError, match=r"^--ray-address: must be an address like host:port, but got "):
            tc.search(ray_address=wrong)  # type: ignore[arg-type]
