"""`check-script`: one line per finding, JSON for programs, and one clear line for what is no Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cropshield.cli import main

SCRIPT = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--amp', type=bool, default=True)\n"


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main(["check-script", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code, out, err = told(capsys, *argv)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    return line


def test_findings_are_printed_as_by_a_linter_and_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    code, out, _ = told(capsys, script)

    assert code == 0
    assert out.splitlines() == [
        f"{script}:3: argparse-bool  type=bool calls bool() on the text: '--flag False' is True, as is every text "
        "but an empty one"
        "  -> action=argparse.BooleanOptionalAction (--amp, --no-amp)",
        f"{script}: places to look at: 1, kinds of mistake: 1",
    ]


def test_json_is_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    _, out, _ = told(capsys, script, "--json")

    (finding,) = json.loads(out)
    assert {name: finding[name] for name in ("file", "line", "rule")} == {
        "file": str(script),
        "line": 3,
        "rule": "argparse-bool",
    }
    assert finding["right"].startswith("action=argparse.BooleanOptionalAction")


def test_a_script_without_mistakes_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('hello')\n")

    assert told(capsys, script) == (0, f"{script}: none of the known mistakes\n", "")
    assert told(capsys, script, "--json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"for x in loader:\n    loss = (1,\n", ":2: not Python: '(' was never closed"),
        (b"def f():\n\tx = 1\n        y = 2\n", ":3: not Python: inconsistent use of tabs and spaces in indentation"),
        (b"import torch\nfor x in\n", ":2: not Python: invalid syntax"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", ": not Python: its bytes are no text"),
        (b"x = 1\x00\n", ":1: not Python: "),
        (b"# coding: klingon\nx = 1\n", ": not Python: its bytes are no text"),
        (b"x = " + b"(" * 5000 + b")" * 5000, " nested "),
    ],
)
def test_what_is_no_python_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
) -> None:
    script = tmp_path / "train.py"
    script.write_bytes(content)

    line = refused(capsys, script)

    assert line.startswith(f"error: {script}:")
    assert complaint in line


def test_a_missing_script_a_folder_and_a_notebook_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tmp_path / "train.ipynb"
    notebook.write_text("{}")

    assert refused(capsys, tmp_path / "gone.py") == f"error: {tmp_path / 'gone.py'}: No such file or directory"
    assert refused(capsys, tmp_path) == f"error: {tmp_path}: is a folder, no script"
    assert (
        refused(capsys, notebook)
        == f"error: {notebook}: a notebook, no script: jupyter nbconvert --to script train.ipynb makes one"
    )


def test_a_fragment_indented_as_a_whole_and_with_a_notebooks_magics_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "cell.py"
    script.write_text(
        "    %matplotlib inline\n    !pip install torch\n    from torch.cuda.amp import autocast\n    return autocast\n"
    )

    _, out, _ = told(capsys, script)

    assert out.startswith(f"{script}:3: deprecated-cuda-amp  ")


def test_windows_line_ends_a_byte_order_mark_and_tabs_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "train.py"
    script.write_bytes(b"\xef\xbb\xbfdef f(p):\r\n\tp.add_argument('--amp', type=bool)\r\n")

    _, out, _ = told(capsys, script)

    assert out.startswith(f"{script}:2: argparse-bool  ")


def test_several_scripts_are_read_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty, sound = tmp_path / "faulty.py", tmp_path / "sound.py"
    faulty.write_text(SCRIPT)
    sound.write_text("print('hello')\n")

    _, out, _ = told(capsys, faulty, sound, faulty)
    assert [line.partition(": ")[0] for line in out.splitlines()] == [f"{faulty}:3", str(faulty), str(sound)]

    _, out, _ = told(capsys, faulty, sound, "--json")
    assert [each["file"] for each in json.loads(out)] == [str(faulty)]


def test_the_doctors_old_flag_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--script", "train.py"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: argument --script: is a command of its own now: check-script train.py "
        "(tune-cropshield doctor --help tells more)\n"
    )


def test_a_script_is_read_without_torch(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    code = (
        "import sys\nfrom tune_cropshield.cli import main\nmain(['check-script', "
        f"{str(script)!r}])\nprint('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1] == "False"
