"""Folders of ours: never among the photographs, and two that are named at the same moment are two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tune_cropshield as tc
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.files import make_free_folder
from tune_cropshield.search.ray_runtime import short_temp_dir

ROOT = Path(__file__).parents[1]
RUN = TrialConfig(model="tiny_cnn", image_size=32, epochs=1, threads=1)


@pytest.mark.parametrize("out", ["", "out", "rust/out"])
def test_results_are_not_written_among_the_photographs(drawn_leaves: Path, home: Path, out: str) -> None:
    told = f"^{drawn_leaves / out} lies inside the folder of photographs, {drawn_leaves}: give a folder elsewhere "
    (home / "link").symlink_to(drawn_leaves)

    with pytest.raises(tc.UserError, match=told):
        tc.search(data=drawn_leaves, out=drawn_leaves / out)
    with pytest.raises(tc.UserError, match="lies inside the folder of photographs"):
        tc.search(data=drawn_leaves, out=home / "link" / out)
    run = RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=RUN)
    with pytest.raises(tc.UserError, match=told):
        tc.train(run, out=drawn_leaves / out)
    assert not (drawn_leaves / "out").exists() and not (drawn_leaves / "rust" / "out").exists()


def test_a_cache_among_the_photographs_is_refused(
    drawn_leaves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(drawn_leaves / "cache"))

    with pytest.raises(tc.UserError, match=r": set XDG_CACHE_HOME to a folder elsewhere$"):
        tc.search(data=drawn_leaves, out=tmp_path / "out")


def test_folders_that_are_named_in_the_same_moment_differ(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.files import make_free_folder
for _ in range(50):
    print(make_free_folder(Path({str(tmp_path)!r}) / "runs" / "demo-20260101-000000"))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    made = [line for process in processes for line in process.communicate(timeout=60)[0].splitlines()]

    assert len(made) == len(set(made)) == 200
    assert make_free_folder(tmp_path / "another") == tmp_path / "another"
    assert make_free_folder(tmp_path / "another") == tmp_path / "another-2"


@pytest.mark.slow
def test_two_trainings_without_a_name_have_a_folder_each(
    drawn_leaves: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    run = RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=RUN)

    folders = {tc.train(run, progress=False).folder for _ in range(3)}

    assert len(folders) == 3
    assert all((folder / "model.safetensors").is_file() for folder in folders)


def test_a_training_is_not_gone_on_with_on_other_photographs(drawn_leaves: Path, home: Path) -> None:
    run = RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=RUN.model_copy(update={"epochs": 2}))
    tc.train(run, out=home / "out", progress=False)
    others = draw_leaves(home / "more", classes=4, per_class=31, image_size=40)
    with pytest.raises(tc.UserError, match="since this training was begun, 4 photographs are new: "):
        tc.train(run, data=others, out=home / "out", resume=True, progress=False)


def test_the_folder_for_rays_sockets_is_short(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()

    assert short_temp_dir((str(long), "/tmp")) == "/tmp"
    with pytest.raises(tc.UserError, match=r"has at most 35 bytes and that can be written to, but .* will not do"):
        short_temp_dir((str(long),))
