"""`check-script`: one line per finding, JSON for programs, and one clear line for what is no Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cropshield.check_script.source import parse_source
from tune_cropshield.cli import main
from tune_cropshield.shell import command

LOOP = (
    "for x, y in loader:\n    loss = criterion(model(x), y)\n    optimizer.zero_grad()\n    loss.backward()\n"
    "    optimizer.step()\n"
)
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
        f"{script}: places to look at: 1, kinds of mistake: 1; no PyTorch training loop found",
    ]


def test_json_is_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT + LOOP)

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
    script.write_text(LOOP)

    assert told(capsys, script) == (0, f"{script}: none of the known mistakes\n", "")
    assert told(capsys, script, "--json") == (0, "[]\n", "")


def test_nothing_is_said_of_what_was_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("from keras import layers\n")

    nothing = "no PyTorch training loop found (Keras would train here): nothing was judged"
    assert told(capsys, script) == (0, f"{script}: {nothing}\n", "")
    assert json.loads(told(capsys, script, "--json")[1]) == [
        {"file": str(script), "line": 1, "rule": "not-judged", "wrong": nothing, "right": ""}
    ]

    script.write_text("import keras\n" + SCRIPT)
    assert told(capsys, script)[1].splitlines()[-1] == (
        f"{script}: places to look at: 1, kinds of mistake: 1; no PyTorch training loop found (Keras would train here)"
    )


def test_a_function_with_too_many_ways_through_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    ways = "".join(
        f"        if c{n}: optimizer_{n}.step()\n        if d{n}: clip_grad_norm_(p{n}, 1)\n" for n in range(12)
    )
    script.write_text("def train(loader):\n    for x, y in loader:\n        criterion(net(x), y).backward()\n" + ways)

    *findings, unjudged, summary = told(capsys, script)[1].splitlines()
    assert [line.partition("  ")[0] for line in findings] == [f"{script}:4: gradients-never-cleared"]
    assert unjudged == f"{script}:1: not judged: train, too many ways through it"
    assert summary == f"{script}: places to look at: 1, kinds of mistake: 1"
    entry = json.loads(told(capsys, script, "--json")[1])[-1]
    assert (entry["line"], entry["rule"], entry["wrong"]) == (1, "not-judged", "train, too many ways through it")

    script.write_text(script.read_text() + "        optimizer.zero_grad()\n")
    assert told(capsys, script)[1].splitlines() == [
        f"{script}:1: not judged: train, too many ways through it",
        f"{script}: none of the known mistakes in what was judged",
    ]


def test_an_evaluation_without_training_is_judged_and_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text("model.eval()\nwith torch.no_grad():\n    for x, y in val_loader:\n        hits(model(x), y)\n")

    assert told(capsys, script)[1] == (
        f"{script}: no PyTorch training loop found: none of the known mistakes in its evaluation\n"
    )
    assert told(capsys, script, "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"for x in loader:\n    loss = (1,\n", ":2: not Python: '(' was never closed"),
        (b"def f():\n\tx = 1\n        y = 2\n", ":3: not Python: inconsistent use of tabs and spaces in indentation"),
        (b"import torch\nfor x in\n", ":2: not Python: invalid syntax"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", ":1: not Python: its bytes are no text"),
        (b"x = 1\nname = 'Bl\xe4tter'\n", ":2: not Python: its bytes are no text in utf-8, and it declares no other"),
        (b"import torch\nprint 'loss', 1\n", ":2: Python 2: convert it to Python 3 first"),
        (b"try:\n    train()\nexcept OSError, error:\n    raise error, None\n", ": Python 2: convert it"),
        (b"print('%d'\n  % (1, 2) loss)\n%matplotlib inline\n", ":1: not Python: invalid syntax."),
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


def test_what_holds_no_script_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook, large = tmp_path / "train.ipynb", tmp_path / "data.txt"
    assert refused(capsys, tmp_path / "gone.py") == f"error: {tmp_path / 'gone.py'}: No such file or directory"
    assert refused(capsys, tmp_path) == (
        f"error: {tmp_path}: no scripts (.py) and no notebooks (.ipynb) in this folder"
    )
    notebook.write_text("{}")
    assert refused(capsys, notebook) == f"error: {notebook}: not a notebook: it has no cells"
    notebook.write_text("{")
    assert refused(capsys, notebook) == f"error: {notebook}: not a notebook: it is no JSON"
    notebook.write_text('{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}')
    assert refused(capsys, notebook) == f"error: {notebook}: not Python: a notebook in r"
    large.write_text("x = 1\n" * 1_000_000)
    assert refused(capsys, large) == f"error: {large}: too large to be read: 6 MB, where 5 are the most"


def test_what_cannot_be_read_does_not_keep_the_rest_from_being_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound = tmp_path / "broken.py", tmp_path / "sound.py"
    broken.write_text("for x in\n")
    sound.write_text(LOOP)

    error = f"error: {broken}:1: not Python: invalid syntax\n"
    assert told(capsys, broken, sound) == (2, f"{sound}: none of the known mistakes\n", error)
    code, out, err = told(capsys, tmp_path, "--json")
    assert (code, err) == (2, error)
    assert json.loads(out) == [
        {
            "file": str(broken),
            "line": 1,
            "rule": "not-judged",
            "wrong": f"{broken}:1: not Python: invalid syntax",
            "right": "",
        }
    ]


def test_a_folder_is_not_told_clean_of_files_that_could_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound, faulty = tmp_path / "broken.py", tmp_path / "sound.py", tmp_path / "faulty.py"
    broken.write_text("x = 1\nfor x in\n")
    none_read = f"{tmp_path}: 1 script or notebook, none of them could be read: nothing was judged\n"
    assert told(capsys, tmp_path)[:2] == (2, none_read)
    (entry,) = json.loads(told(capsys, broken, "--json")[1])
    assert (entry["line"], entry["rule"]) == (2, "not-judged")

    sound.write_text(LOOP)
    clean = (
        f"{tmp_path}: 2 scripts and notebooks, none of the known mistakes in what was judged; could not be read: 1\n"
    )
    assert told(capsys, tmp_path)[:2] == (2, clean)

    faulty.write_text(SCRIPT + LOOP)
    assert told(capsys, tmp_path)[1].splitlines()[-1] == (
        f"{tmp_path}: 3 scripts and notebooks, places to look at: 1 in 1 of them; could not be read: 1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "print('[%d/%d]'\n  % (1, 2))\n",
        "different = (1\n!= 2)\n",
        "rest = [7\n% 4, 9\n%5]\n",
        'HELP = """\nUsage\n? shows this\n%time is a magic\n!ls\n"""\n',
        "text = '''\n    %matplotlib inline\n'''\n",
        "if 1:\n    x = 5 \\\n    % 3\n",
    ],
)
def test_python_with_lines_that_look_like_magics_is_read_as_it_is(text: str) -> None:
    source = parse_source(text, "train.py")

    assert "\n".join(source.lines) == text
    assert ast.dump(source.tree) == ast.dump(ast.parse(text))


def test_in_a_notebooks_script_only_the_magics_are_passed_over() -> None:
    script = "%matplotlib inline\nfiles = !ls\nmodel?\nif files:\n    !rm x\nprint('%d'\n  % (1,))\n"

    source = parse_source(script, "train.py")

    assert source.lines == ("pass", "pass", "pass", "if files:", "    pass", "print('%d'", "  % (1,))", "")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "koi8-r"])
def test_a_declared_encoding_is_kept_to(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    script = tmp_path / "train.py"
    name = "лист" if encoding == "koi8-r" else "Blätter"
    script.write_bytes(f"#!/usr/bin/python\n# -*- coding: {encoding} -*-\nname = '{name}'\n{SCRIPT}".encode(encoding))

    assert told(capsys, script)[1].startswith(f"{script}:6: argparse-bool  ")


def test_a_folder_is_searched_but_not_what_others_have_put_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (".venv/lib", "mine", "mine/deep", "x/site-packages", "node_modules", ".git", "own_env/lib"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train.py").write_text(SCRIPT)
    (tmp_path / "own_env/pyvenv.cfg").touch()
    (tmp_path / "mine/model.py").write_text("import torch\n")
    (tmp_path / "mine/sound.py").write_text(LOOP)

    code, out, _ = told(capsys, tmp_path)

    assert code == 0
    deep, mine = (tmp_path / "mine" / "deep" / "train.py", tmp_path / "mine" / "train.py")
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        f"{deep}:3",
        f"{deep}",
        f"{mine}:3",
        f"{mine}",
        f"{tmp_path}",
    ]
    assert out.splitlines()[-1] == (
        f"{tmp_path}: 4 scripts and notebooks, places to look at: 2 in 2 of them; no PyTorch training loop in 3"
    )


def test_a_notebooks_cells_are_one_script_and_places_are_told_by_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tmp_path / "train.ipynb"
    scaled = LOOP.replace("optimizer.step()", "scaler.step(optimizer)\n    scaler.update()")
    cells = [
        ("code", ["%matplotlib inline\n", "!pip install torch\n", "from torch.cuda.amp import autocast"]),
        ("markdown", "Training"),
        ("code", "%%bash\nls | head"),
        ("code", "def train(i, (x, y)):\n    pass"),
        ("code", "x = 1\n" + scaled),
    ]
    notebook.write_text(json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in cells]}))

    code, out, _ = told(capsys, notebook)

    assert code == 0
    assert [line.partition("  ")[0] for line in out.splitlines()] == [
        f"{notebook}:cell 1:3: deprecated-cuda-amp",
        f"{notebook}:cell 4:5: loss-not-scaled",
        f"{notebook}:cell 3:1: not judged: cell 3, which is not Python: Function parameters cannot be parenthesized",
        f"{notebook}: places to look at: 2, kinds of mistake: 2",
    ]
    places = [(each["cell"], each["line"]) for each in json.loads(told(capsys, notebook, "--json")[1])]
    assert places == [(1, 3), (4, 5), (3, 1)]


def test_a_notebook_without_code_has_nothing_to_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = tmp_path / "empty.ipynb"
    notebook.write_text('{"cells": [], "nbformat": 4}')

    assert told(capsys, notebook) == (0, f"{notebook}: no PyTorch training loop found: nothing was judged\n", "")


def test_what_is_nested_too_deeply_is_said_to_be_unjudged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("x = " + " + ".join(["1"] * 2000) + "\n" + LOOP)

    assert told(capsys, script) == (
        0,
        f"{script}:1: not judged: the script, which is nested too deeply\n"
        f"{script}: none of the known mistakes in what was judged\n",
        "",
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
    faulty.write_text(SCRIPT + LOOP)
    sound.write_text(LOOP)

    _, out, _ = told(capsys, faulty, sound, faulty)
    assert [line.partition(": ")[0] for line in out.splitlines()] == [f"{faulty}:3", str(faulty), str(sound)]

    _, out, _ = told(capsys, faulty, sound, "--json")
    assert [each["file"] for each in json.loads(out)] == [str(faulty)]


def test_the_doctors_old_flag_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--script", "train.py"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: argument --script: is a command of its own now: {command('check-script', 'train.py')} "
        f"({command('doctor', '--help')} tells more)\n"
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


def test_names_that_break_a_line_or_look_like_a_style_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[bold] scripts"
    folder.mkdir()
    (folder / "a\nb.py").write_text(SCRIPT)

    _, out, _ = told(capsys, folder)

    assert [line.split(": ")[0] for line in out.splitlines()] == [
        f"{folder}/a\\nb.py:3",
        f"{folder}/a\\nb.py",
        str(folder),
    ]
