"""README.md, docs/ and the READMEs of results/: their commands are ones, their links lead somewhere."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune_cropshield.cli import build_parser, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_RESULTS = sorted((ROOT / "results").glob("*/README.md"))
PROGRAM = re.compile(r"(?:tune-cropshield|python3? -m tune_cropshield)(?= |$)")
# Flags in sentences that are of other programs.
OF_OTHERS = {"--gpus", "--no-dev", "--extra", "--group", "--logdir", "--signal", "--gres", "--cpus-per-task", "--time"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_lines(text: str) -> Iterator[str]:
    """Yields the lines of a page's code: indented by four, or between fences. Their indentation is taken away."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line if fenced else line[4:]


def commands(text: str) -> list[list[str]]:
    """Returns the words behind the program's name of each command that a page shows."""
    found = []
    for line in code_lines(text):
        if (program := PROGRAM.search(line)) is not None and not line.lstrip().startswith(("#", "usage:")):
            words = shlex.split(re.split(r" [>|&] ?", line[program.end() :])[0], comments=True)
            found.append(words)
    return found


def sentences(text: str) -> str:
    """Returns a page without its code blocks."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def wrong_commands(text: str) -> list[list[str]]:
    wrong = []
    for words in commands(text):
        try:
            build_parser().parse_args(words)
        except SystemExit as end:
            if end.code != 0:  # --help and --version end with 0
                wrong.append(words)
    return wrong


def flags_of_the_program() -> set[str]:
    parser = build_parser()
    (subcommands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {flag for each in (parser, *subcommands.choices.values()) for flag in each._option_string_actions}


def anchors(page: str) -> set[str]:
    """Returns what can stand behind # in a link to a page: its headings as GitHub spells them."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Returns the links of a page, `text`, to files or headings that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):  # https:, mailto:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(text if file == page else file.read_text("utf-8"))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_on_a_page_is_understood(page: Path) -> None:
    assert wrong_commands(page.read_text(encoding="utf-8")) == []


def test_the_pages_show_commands_and_a_wrong_one_is_seen() -> None:
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) >= 30
    text = "Do:\n\n    x && tune-cropshield search --data a/ --no-such 3  # hm\n\n```\ntune-cropshield plan > a\n```\n"
    assert commands(text) == [["search", "--data", "a/", "--no-such", "3"], ["plan"]]
    assert wrong_commands(text) == [["search", "--data", "a/", "--no-such", "3"]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_in_a_sentence_is_one(page: Path) -> None:
    spans = re.findall(r"`([^`]+)`", sentences(page.read_text(encoding="utf-8")))
    flags = {
        flag for span in spans if not span.startswith(("benchmarks/", "ssh")) for flag in re.findall(r"--[a-z-]+", span)
    }
    assert flags - flags_of_the_program() - OF_OTHERS == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_benchmark_on_a_page_is_there_and_knows_its_flags(page: Path) -> None:
    for name, rest in re.findall(r"benchmarks/(\w+\.py)([^`\n|]*)", page.read_text(encoding="utf-8")):
        code = (ROOT / "benchmarks" / name).read_text(encoding="utf-8")
        assert [flag for flag in re.findall(r"--[a-z-]+", rest.split("#")[0]) if f'"{flag}"' not in code] == []


@pytest.mark.parametrize("page", [*PAGES, *OF_RESULTS], ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_seen() -> None:
    text = "# A page\n\n[a](docs/none.md) [b](#a-page) [c](#no-page) [d](docs/glossary.md#glossary) [e](https://x.org)"
    assert broken_links(ROOT / "README.md", text) == ["docs/none.md", "#no-page"]


def test_the_readme_is_short_and_lists_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 170
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme] == []


def test_check_script_finds_on_the_page_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "train.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    assert main(["check-script", "train.py"]) == 0
    found = re.compile(r"^ *(train\.py:\d+: [a-z-]+)  ", re.MULTILINE)
    assert found.findall(capsys.readouterr().out) == found.findall(page)
    assert found.findall(page) == ["train.py:8: last-window-dropped", "train.py:9: clip-before-unscale"]


@pytest.mark.parametrize("page", [page for page in OF_RESULTS if page.parent.name != "screenshots"], ids=name_of)
def test_a_page_of_results_names_the_machine_and_the_version_of_pytorch_or_that_it_is_not_known(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"torch \d|PyTorch \d|version of PyTorch", text)
    assert re.search(r"H\d00|\bcores?\b", text)
