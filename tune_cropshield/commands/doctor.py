"""`doctor`: the machine, the photographs and the guide's claims, measured here; or a training script, read for known
mistakes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tune_cropshield.config.faults import command_line, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.folder import check_folder
from tune_cropshield.data.generated import generated_leaves
from tune_cropshield.device import find_device, num_cores
from tune_cropshield.errors import UserError

PIPED_WIDTH = 160  # characters: a file has no edge, and 80 would fold every line


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Findings are results, not failures: the exit code is 0."""
    if args.script is not None:
        if args.data is not None or args.model is not None:
            raise UserError("--script reads a script and measures nothing: leave out --data and --model")
        return _read_script(args.script, args.json)
    return _examine(args)


def _examine(args: argparse.Namespace) -> int:
    if args.model is not None:
        validated(TrialConfig, {"model": args.model}, command_line("trial", {"model": args.model}))
    if args.data is not None:
        check_folder(args.data)  # before anything heavy is imported
    root = args.data.absolute() if args.data is not None else generated_leaves(cache_dir())
    device = find_device("auto")
    import torch

    from tune_cropshield.doctor.examination import examine
    from tune_cropshield.doctor.report import show

    progress = Console(stderr=True)
    with progress.status("looking") as status:
        found = examine(
            root,
            args.data is None,
            args.model,
            torch.device("cuda", 0) if device == "cuda" else torch.device("cpu"),
            num_cores(),
            cache_dir(),
            lambda what: status.update(f"measuring {what}"),
        )
    if args.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        console = Console(highlight=False)
        show(found, console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH))
    return 0


def _read_script(path: Path, as_json: bool) -> int:
    from tune_cropshield.check_script import check

    findings = check(path)
    if as_json:
        listed = [
            {"file": str(path), "line": each.line, "rule": each.rule, "wrong": each.wrong, "right": each.right}
            for each in findings
        ]
        print(json.dumps(listed, indent=2))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for each in findings:
        place = Text(f"{path}:{each.line}: ")
        console.print(
            place.append(each.rule, style="bold")
            .append(f"  {each.wrong}")
            .append("  -> ", style="dim")
            .append(each.right)
        )
    rules = len({each.rule for each in findings})
    told = (
        f"places to look at: {len(findings)}, kinds of mistake: {rules}" if findings else "none of the known mistakes"
    )
    console.print(f"{path}: {told}")
    return 0
