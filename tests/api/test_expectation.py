"""`search --dry-run` with photographs: the same faults and remarks as a search, and what it would take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tune_cropshield.api.expectation import epochs_when_pruned, estimate_line, images_per_s, trials_within
from tune_cropshield.cli import main
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.memory.choose.pairs import Pair
from tune_cropshield.search.resources import divide

FLAGS = ("--dry-run", "--model", "tiny_cnn", "--image-size", "32", "--device", "cpu")


def test_a_dry_run_looks_at_the_photographs_and_tells_disk_and_time(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw_leaves(home / "leaves", classes=3, per_class=20, image_size=24)
    first = sorted(root.iterdir())[0]
    (first / "notes.txt").write_text("")
    first.rename(root / "leaf_mold")
    sorted(path for path in root.iterdir() if path.name != "leaf_mold")[0].rename(root / "Leaf_mould")

    assert main(["search", "--data", str(root), *FLAGS]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[-6].startswith(
        "60 photographs, 3 classes: 48 for training, 6 for validation, 6 for the test (fewer where some"
    )
    assert told[-5] == "ignored, not photographs: 1 .txt"
    assert "differ only in one letter" in told[-4]
    assert told[-3].startswith("6 validation photographs: one is 16.7 points of val_acc")
    # 60 pictures of 36 x 36 px and thumbnails of 16 x 16 px are 0.3 MiB
    assert re.match(r"disk: 1 MiB for decoded photographs .* at most about \d+ MiB in the search's folder", told[-2])
    assert re.match(
        r"time: about .* for 600 epochs if no trial is pruned; about .* from [\d.,]+ images/s of (3|a) plain", told[-1]
    )
    assert sorted(path.name for path in home.rglob("*") if path.name in ("images.u8", "t000")) == []


def test_a_dry_run_tells_of_long_photographs_and_of_what_trial_0_takes_instead_of_the_reference(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("rust", "scab"):
        (home / "leaves" / label).mkdir(parents=True)
        for index in range(6):
            Image.effect_noise((64, 36), 60).convert("RGB").save(home / "leaves" / label / f"{index}.jpg")
    (home / "leaves" / "rust" / "broken.jpg").write_bytes(b"no image")
    for label in ("rust", "scab"):
        (home / "leaves" / label / "empty.jpg").write_bytes(b"")
    space = '[trial]\nmodel = "cropshield_cnn"\nimage_size = 32\n[space]\nmax_norm = {choice = [0.1, 1.0]}\n'
    (home / "space.toml").write_text(space)
    (home / "pad.toml").write_text(space + '[data]\nfit = "pad"\n[search]\ngrace_epochs = 1\n')
    flags = ("--data", str(home / "leaves"), "--dry-run", "--device", "cpu")

    assert main(["search", "--space", str(home / "space.toml"), *flags]) == 0
    told = capsys.readouterr().out
    assert "identical files" not in told
    assert "half of the photographs are 1.78 times as long as wide, or longer: the centre crop leaves out 44%" in told
    assert (
        "  (trial 0 has max_norm = 1, the largest bound in the search space: the reference "
        'setting\'s "none" (no clipping) is not in it)\n'
    ) in told

    assert main(["search", "--space", str(home / "pad.toml"), *flags, "--trials", "1", "--epochs", "1"]) == 0
    told = capsys.readouterr().out
    assert "times as long as wide" not in told
    assert "px on cpu, 1 trial at once\n" in told
    assert "worst case: 1 trial x 1 epoch = 1 epoch, if none is stopped early\n" in told
    assert "for 1 epoch if no trial is pruned. This is an estimate" in told and "trials at once taken" not in told


def test_a_dry_run_refuses_photographs_that_a_search_would_refuse(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--data", str(home / "gone"), *FLAGS]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {str(home / 'gone')!r}\n"
    root = draw_leaves(home / "leaves", classes=2, per_class=3, image_size=24)
    sorted(root.rglob("*.jpg"))[0].unlink()
    assert main(["search", "--data", str(root), *FLAGS]) == 2
    assert "too few distinct images to split into train, test, val" in capsys.readouterr().err


def test_a_dry_run_without_photographs_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *FLAGS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ("no --data given: photographs, disk and time are not estimated")


@pytest.mark.parametrize(
    ("trials", "epochs", "grace", "expected"),
    [
        # After epochs 1, 2, 4 and 8 half goes on, one at least. The reference setting is trained to its end where
        # that takes no more than a tenth.
        (9, 9, 1, 9 * 1 + 4.5 * 1 + 2.25 * 2 + 1.125 * 4 + 1 * 1 + 0.5),
        (12, 8, 2, 12 * 2 + 6 * 2 + 3 * 4),
        (40, 8, 2, 40 * 2 + 20 * 2 + 10 * 4 + 6),
        (5, 4, 4, 5 * 4),
    ],
)
def test_epochs_are_counted_as_pruning_leaves_them(trials: int, epochs: int, grace: int, expected: float) -> None:
    search = SearchSettings(trials=trials, epochs=epochs, grace_epochs=grace)
    assert epochs_when_pruned(search) == expected


def test_without_a_reference_setting_its_epochs_are_not_counted() -> None:
    assert epochs_when_pruned(SearchSettings(trials=12, epochs=8, grace_epochs=2, baseline=False)) == 48


def test_as_many_trials_are_searched_as_a_time_holds() -> None:
    search = SearchSettings(epochs=8, grace_epochs=2, baseline=False)  # 12 trials: 48 epochs
    assert trials_within(48 * 10.0, search, epoch_s=10.0, at_once=1) == 12
    assert trials_within(24 * 10.0, search, epoch_s=10.0, at_once=2) == 12
    assert trials_within(1.0, search, epoch_s=10.0, at_once=4) == 4  # one each, whatever the time
    assert trials_within(1e9, search, epoch_s=10.0, at_once=1) == 200


def test_a_search_says_before_its_first_trial_what_it_takes() -> None:
    search = SearchSettings(trials=12, epochs=8, grace_epochs=2, baseline=False)
    mib = 2**20

    assert estimate_line(search, 10.0, 2, 4 * mib) == (
        "estimate: about 4 min 10 s for 12 trials (8 min 10 s if none is pruned), and at most about 496 MiB of disk; "
        "--trials N or --time-budget 2h sets another length"
    )
    in_time = search.model_copy(update={"time_budget": "2h"})
    assert estimate_line(in_time, 10.0, 2, 4 * mib) == (
        "estimate: about 4 min 10 s for 12 trials (8 min 10 s if none is pruned), it ends after 2 h at the latest, and "
        "at most about 496 MiB of disk"
    )
    assert estimate_line(search, None, 2, 4 * mib) == (
        "estimate: at most about 496 MiB of disk for 12 trials; how long they take is known after the first epochs"
    )
    unpruned = search.model_copy(update={"pruning": "none", "trials": 1})
    assert "about 1 min 30 s for 1 trial, and at most about 36 MiB of disk" in estimate_line(unpruned, 10.0, 1, 4 * mib)


def test_the_speed_of_a_slow_step_is_told_by_two_images() -> None:
    space = load_space(Path("search_spaces/cropshield_cnn.toml"))
    resources = divide("cpu", 1, 1)

    rate, how = images_per_s(space, resources, Pair(128, 1))
    assert " images/s of a plain step of 2x1, timed now on this cpu in fp32" in how and rate > 0


def test_a_dry_run_has_as_many_trials_as_the_time_budget_holds(
    drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("search", "--data", str(drawn_leaves), "--dry-run", "--device", "cpu")
    assert main([*flags, "--time-budget", "12h"]) == 0
    said = capsys.readouterr().out
    assert "worst case: 200 trials x 25 epochs" in said
    assert said.endswith(
        "of the 12 h of the time budget, 4 h are for trials; then the winner is trained again, longer\n"
    )
    assert main([*flags, "--time-budget", "12h", "--trials", "7", "--no-finish"]) == 0
    said = capsys.readouterr().out
    assert "worst case: 7 trials x 25 epochs" in said
    assert said.endswith("of the 12 h of the time budget, all is for trials\n")
