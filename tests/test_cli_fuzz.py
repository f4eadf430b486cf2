"""Any file and any command line: exit code 0 or 2, never a traceback, never anything written.

2 x 100 files and 100 command lines; `--hypothesis-profile=thorough` tries 2,500 of each kind. Nothing here can start a
training: the photographs that are named are not there, and searches are dry runs.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tune_cropshield.cli import main
from tune_cropshield.config.settings import RunConfig, save_config

SPACES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.toml"))
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

NUMBERS = st.one_of(
    st.sampled_from(
        [0, -1, 1, 2, 3, 2**31, 2**63, 10**30, 0.0, -0.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")]
    ),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", "none", "auto", "1e-4", "8GB", "2h", "cpu", "resnet18", "\x00", "a\nb", "ü葉"]),
    st.text(st.characters(codec="utf-8")),
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans(), st.dates(), st.datetimes())
KEYS = st.one_of(
    st.sampled_from(["lr", "mixup", "model", "log", "int", "choice", "trial", "space", "epochs", "seed", "pairs"]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=4,
)


@st.composite
def broken_tables(draw: st.DrawFn, tables: dict[str, Any]) -> dict[str, Any]:
    """Draws `tables` with one to four changes: a value replaced, a key renamed, removed or added."""
    tables = tomllib.loads(tomli_w.dumps(tables))
    for _ in range(draw(st.integers(1, 4))):
        table: Any = tables
        while True:
            inner = [
                item
                for item in (table.values() if isinstance(table, dict) else table)
                if isinstance(item, dict | list) and item
            ]
            if not inner or draw(st.integers(0, 3)) == 0:
                break
            table = draw(st.sampled_from(inner))
        if isinstance(table, list):
            table[draw(st.integers(0, len(table) - 1))] = draw(VALUES)
            continue
        keys = sorted(table)
        change = draw(st.sampled_from(["replace", "rename", "remove", "add"])) if keys else "add"
        if change == "add":
            table[draw(KEYS)] = draw(VALUES)
            continue
        old = draw(st.sampled_from(keys))
        value = table.pop(old)
        if change == "replace":
            table[old] = draw(VALUES)
        elif change == "rename":
            table[draw(KEYS)] = value
    return tables


@st.composite
def broken_files(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Draws one of the files with its tables changed, or some of its bytes."""
    content = draw(st.sampled_from(originals))
    if draw(st.booleans()):
        return tomli_w.dumps(draw(broken_tables(tomllib.loads(content.decode())))).encode()
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(changed) - 1))
        changed[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        if not changed:
            break
    return bytes(changed)


def config_file() -> bytes:
    return tomli_w.dumps(
        {
            name: {key: item for key, item in table.items() if item is not None}
            for name, table in RunConfig().model_dump().items()
        }
    ).encode()


@pytest.fixture
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with a few things that commands can stumble over."""
    folder = home / "work"
    for name in ("empty", "full", "damaged"):
        (folder / name).mkdir(parents=True)
    (folder / "file").write_text("no folder")
    (folder / "full" / "leaf.jpg").write_text("no image")
    for name in ("study.journal", "search.toml", "config.toml", "classes.json", "model.safetensors", "metrics.jsonl"):
        (folder / "damaged" / name).write_text("damaged\n")
    save_config(RunConfig(), folder / "config.toml")
    monkeypatch.chdir(folder)
    return home


def checked(argv: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Runs a command and returns its exit code; it may do its work or refuse, and must leave everything as it is."""
    before = {path: path.stat().st_size for path in place.rglob("*")}
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    err = capsys.readouterr().err
    assert code in (0, 2), err
    assert "Traceback" not in err
    assert (code == 2) == bool(err), err
    assert all(line.startswith("error: ") for line in err.splitlines())
    assert {path: path.stat().st_size for path in place.rglob("*")} == before
    return code


@pytest.mark.slow
@given(broken_files([path.read_bytes() for path in SPACES]))
@SHARED
def test_any_search_space_is_searched_or_refused(
    place: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (place / "work" / "file.toml").write_bytes(content)

    assert checked(["search", "--space", "file.toml", "--dry-run"], place, capsys) in (0, 2)


@pytest.mark.slow
@given(broken_files([config_file()]))
@SHARED
def test_any_configuration_is_refused_where_there_are_no_photographs(
    place: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (place / "work" / "file.toml").write_bytes(content)

    assert (
        checked(["train", "--config", "file.toml", "--data", "gone", "--out", "out", "--device", "cpu"], place, capsys)
        == 2
    )


SEARCH_FLAGS = (
    "data space model image-size vram trials epochs time-budget out seed device trials-per-gpu sampler ray-address "
    "resume stop-when-flat no-stop-when-flat baseline no-baseline quiet json-lines help"
)
FLAGS = {
    "search": [f"--{name}" for name in SEARCH_FLAGS.split()],
    "plan": [
        "--model",
        "--image-size",
        "--vram",
        "--precision",
        "--effective-batch",
        "--micro-batch",
        "--estimate",
        "--json",
    ],
    "train": ["--config", "--data", "--epochs", "--out", "--device", "--resume", "--early-stopping"],
    "evaluate": ["--data", "--split", "--to", "--json"],
    "predict": ["--json"],
    "export": ["--to", "--format"],
    "confirm": ["--top", "--seeds", "--data", "--device"],
    "sample-data": ["--classes", "--per-class", "--image-size"],
}
PLACES = [
    "empty",
    "full",
    "damaged",
    "file",
    "file/below",
    "gone",
    "/dev/null",
    "config.toml",
    "damaged/config.toml",
    "x" * 300,
    "/",
    ".",
]
WORDS = st.one_of(
    st.sampled_from(
        [
            *PLACES,
            "demo",
            "resnet50_onecycle.toml",
            "0",
            "-1",
            "1",
            "3",
            "1" * 30,
            "1e3",
            "nan",
            "auto",
            "cpu",
            "cuda",
            "8GB",
            "2h",
            "tpe",
        ]
    ),
    st.integers().map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30),
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draws a command with its own flags, right and wrong values, and stray words."""
    command = draw(st.sampled_from([*FLAGS, "tune"]))
    words = [command]
    if command in ("evaluate", "predict", "export", "confirm") and draw(st.integers(0, 9)):
        words.append(draw(st.sampled_from(PLACES)))
    if command == "predict":
        words += draw(st.lists(WORDS, max_size=2))
    if command == "sample-data":
        words.append(draw(st.sampled_from(["full", "file", "file/below", "/dev/null"])))
    for flag in draw(st.lists(st.sampled_from(FLAGS.get(command) or ["--nothing"]), max_size=4)):
        words += [flag, draw(WORDS)] if draw(st.integers(0, 9)) else [flag]
    if not draw(st.integers(0, 9)):
        words.append(draw(WORDS))
    # Whatever else was said, nothing is trained: the last value of a flag counts.
    if command == "search":
        words += ["--dry-run"] if draw(st.booleans()) else ["--data", "gone", "--device", "cpu"]
    if command == "plan":
        words += [
            "--estimate",
            *draw(st.sampled_from([["--vram", "lots"], ["--vram", "rtx3050-laptop", "--model", "tiny_cnn"]])),
        ]
    if command in ("train", "evaluate"):
        words += ["--data", "gone"]
    return words


@given(command_lines())
@example(["search", "--resume", "--out", "damaged", "--dry-run"])
@example(["export", "damaged"])
@example(["export", "damaged", "--to", "file"])
@example(["export", "damaged", "--format", "onnx"])
@example(["confirm", "damaged"])
@example(["predict", "damaged", "full"])
@example(["train", "--config", "config.toml", "--out", "damaged", "--resume", "--data", "gone"])
@example([])
@SHARED
def test_any_command_line_is_obeyed_or_refused(
    place: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert checked(argv, place, capsys) in (0, 2)
