"""Paths as people write them: with ~, with backslashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cropshield.api.arguments import path_of
from tune_cropshield.cli import main
from tune_cropshield.config.settings import load_config
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import ConfigError


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, with nothing in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # Windows
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "leaf.toml"
    path.write_text(text)
    return path


def test_the_tilde_is_the_home_folder_in_toml(own_home: Path) -> None:
    path = written(own_home, '[data]\ndir = "~/leaves"\n[trial]\nmodel = "tiny_cnn"\npretrained = "~/weights.pt"\n')
    config = load_config(path)
    assert config.data.dir == str(own_home / "leaves")
    assert config.trial.pretrained == str(own_home / "weights.pt")
    assert load_space(written(own_home, '[data]\ndir = "~/leaves"\n')).data.dir == str(own_home / "leaves")


def test_the_tilde_is_the_home_folder_in_python_and_after_an_equals_sign(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert path_of("~/leaves", "--data") == own_home / "leaves"
    assert path_of(Path("~/leaves"), "--data") == own_home / "leaves"
    assert main(["doctor", "--data=~/leaves"]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {str(own_home / 'leaves')!r}\n"
    written(own_home, "[search]\ntrials = 0\n")
    assert main(["search", "--space=~/leaf.toml", "--dry-run"]) == 2
    assert "leaf.toml: search.trials: must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (r'dir = "C:\Users\me\leaves"', r"as in 'C:\Users\me\leaves'"),
        (r'dir = "D:\my\leaves"', r"as in 'D:\my\leaves'"),
        (r'dir = "C:\temp\new\leaves"', r"as in 'C:\temp\new\leaves'"),  # TOML reads a tab and a line end
        (r'dir = "C:\best\fresh"', r"as in 'C:\best\fresh'"),
    ],
)
def test_a_windows_path_between_double_quotes_is_answered_with_the_right_quotes(
    tmp_path: Path, line: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, f"[data]\n{line}\n"))
    assert str(caught.value).endswith(f"write a path with backslashes between single quotes, {hint}")
    right = load_config(written(tmp_path, f"[data]\n{line.replace(chr(34), chr(39))}\n"))
    assert right.data.dir == line.split('"')[1]


def test_other_faults_of_toml_get_no_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, '[data]\ndir = "leaves\n'))
    assert "single quotes" not in str(caught.value)
