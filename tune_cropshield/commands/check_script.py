"""`check-script`: training scripts, read for known mistakes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from tune_cropshield.check_script import Finding


def run(args: argparse.Namespace) -> int:
    """Prints a line per finding, or with --json one list. Findings are results, not failures: the exit code is 0."""
    from tune_cropshield.check_script import check

    found = {path: check(path) for path in dict.fromkeys(args.scripts)}
    if args.json:
        print(json.dumps([_as_json(path, each) for path, findings in found.items() for each in findings], indent=2))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for path, findings in found.items():
        _print(path, findings, console)
    return 0


def _as_json(path: Path, finding: Finding) -> dict[str, object]:
    return {
        "file": str(path),
        "line": finding.line,
        "rule": finding.rule,
        "wrong": finding.wrong,
        "right": finding.right,
    }


def _print(path: Path, findings: list[Finding], console: Console) -> None:
    for each in findings:
        line = Text(f"{path}:{each.line}: ").append(each.rule, style="bold")
        console.print(line.append(f"  {each.wrong}").append("  -> ", style="dim").append(each.right))
    kinds = len({each.rule for each in findings})
    told = (
        f"places to look at: {len(findings)}, kinds of mistake: {kinds}" if findings else "none of the known mistakes"
    )
    console.print(f"{path}: {told}")
