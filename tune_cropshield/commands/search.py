"""`search`: from a space, photographs and a budget to the best configuration."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from tune_cropshield.api.arguments import OF_PHOTOGRAPHS
from tune_cropshield.commands import arguments
from tune_cropshield.config.registry import SAMPLERS
from tune_cropshield.errors import UserError
from tune_cropshield.outcome import words
from tune_cropshield.terminal import say

if TYPE_CHECKING:
    from tune_cropshield.api.dry_run import DryRun
    from tune_cropshield.config.space import SearchSettings
    from tune_cropshield.memory.choose.pairs import Pair, Plan

# The flags that become arguments of `tune_cropshield.search` under the same name, where they are given.
SETTINGS = (
    *OF_PHOTOGRAPHS,
    "space",
    "model",
    "image_size",
    "vram",
    "trials",
    "epochs",
    "time_budget",
    "finish",
    "seed",
    "device",
    "trials_per_gpu",
    "sampler",
    "metric",
    "stop_when_flat",
    "learn_from",
    "from_scratch",
    "quick",
    "baseline",
)


HELP = "search for the best setting"
DESCRIPTION = "Searches for the best setting and writes it to OUT/best."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    arguments.add_photographs(parser, "a synthetic data set")
    parser.add_argument(
        "--space",
        metavar="FILE.toml",
        help="search space: a path, or the name of a built-in one (default: chosen for the machine, and for --model)",
    )
    parser.add_argument("--model", metavar="NAME", help="network (default: that of the space)")
    parser.add_argument(
        "--image-size",
        type=arguments.whole_number,
        metavar="PX",
        help="side of the training images (default: that of the space)",
    )
    parser.add_argument("--vram", metavar="8GB|auto", help="GPU memory that a trial may use; auto is what is free now")
    parser.add_argument(
        "--trials",
        type=arguments.whole_number,
        metavar="N",
        help="trials in all; with --resume, more than before extends the search",
    )
    parser.add_argument(
        "--epochs", type=arguments.whole_number, metavar="N", help="epochs of a trial that is not stopped early"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        default=None,
        help="a small search that ends after some minutes, to see how it goes",
    )
    parser.add_argument(
        "--time-budget", metavar="2h", help="time for everything, from the command to the report, resumed runs included"
    )
    parser.add_argument(
        "--finish",
        action=argparse.BooleanOptionalAction,
        help="train the winner again, longer, after the trials: for the rest of the time budget, or 4 times as long as "
        "a trial (default: with a time budget)",
    )
    parser.add_argument(
        "--out", type=arguments.path, metavar="DIR", help="the search's folder (default: results/runs/NAME)"
    )
    parser.add_argument(
        "--seed", type=arguments.whole_number, metavar="N", help="seed of the sampler and of every trial"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on")
    parser.add_argument(
        "--trials-per-gpu",
        type=arguments.count_or_auto,
        metavar="N|auto",
        help="trials at the same time on each GPU, or on the CPU",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the search in --out, or else the last one in results/runs with the same settings",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be searched, with the batch sizes, the pruning steps, time and disk, and train nothing",
    )
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help=f"what proposes the settings: {', '.join(SAMPLERS)}, or your own as FILE.py:NAME",
    )
    parser.add_argument("--metric", metavar="NAME", help=arguments.METRIC)
    parser.add_argument(
        "--stop-when-flat",
        action=argparse.BooleanOptionalAction,
        help="end when more trials are not expected to gain more than the noise of the validation accuracy",
    )
    parser.add_argument(
        "--learn-from",
        type=arguments.path,
        nargs="+",
        metavar="DIR",
        help="earlier searches to learn from (default: those of the same network and optimizer in results/runs and "
        "beside --out)",
    )
    parser.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        help="train the reference setting, or the space's [baseline], as trial 0, to measure the gain against it "
        "(default, where there is one)",
    )
    parser.add_argument("--from-scratch", action="store_true", default=None, help="learn from no earlier search")
    parser.add_argument("--ray-address", metavar="ADDR", help="join a running Ray cluster that shares the folders")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="print only the result")
    shown.add_argument(
        "--json-lines", action="store_true", help="print one JSON object per event on stdout, for programs"
    )


def run(args: argparse.Namespace) -> int:
    """Searches, or with --dry-run says what would be searched. Exit code 1 where the search was of no use."""
    from tune_cropshield.api.dry_run import dry_run
    from tune_cropshield.api.search import search
    from tune_cropshield.search.views.choose import view_for

    console = Console(soft_wrap=True, highlight=False)
    settings = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    if args.dry_run:
        if args.json_lines:
            raise UserError("--dry-run prints a plan for people: leave out --json-lines")
        _print(dry_run(settings, args.out, resume=args.resume), console)
        return 0
    results = search(
        **settings,
        out=args.out,
        ray_address=args.ray_address,
        resume=args.resume,
        progress=view_for(console, args.quiet, args.json_lines),
    )
    return 130 if results.interrupted else 1 if results.failed else 0


def _pruning(settings: SearchSettings) -> str:
    """Returns a line on which trials end early."""
    if settings.pruning != "asha":
        return f"pruning: {settings.pruning}"
    if not settings.pruning_steps:
        return "pruning: none, because grace_epochs leaves no epoch after which trials could be compared"
    steps = ", ".join(str(epoch) for epoch in settings.pruning_steps)
    parts = f" (at each of the last {settings.num_parts - 1} a part ends)" if settings.num_parts > 2 else ""
    return f"pruning steps: after epochs {steps}{parts}, the best 1 in {settings.reduction_factor:g} continue"


def _pairs(plan: Plan, every_pair: bool) -> dict[tuple[str, ...], dict[int, tuple[Pair, ...]]]:
    """Returns {families, in words: their pairs by effective batch}; families with the same pairs stand together."""
    from tune_cropshield.config.branches import where

    found: list[tuple[list[str], dict[int, tuple[Pair, ...]]]] = []
    for family, own in plan.families or (({}, plan),):
        pairs = {batch: own.pairs[batch] if every_pair else own.pairs[batch][:1] for batch in own.effective_batches}
        same = next((names for names, others in found if others == pairs), None)
        if same is None:
            found.append(([where(family)], pairs))
        else:
            same.append(where(family))
    return {tuple(names): pairs for names, pairs in found}


def _print(planned: DryRun, console: Console) -> None:
    """Prints what would be searched: space, pairs, pruning steps, worst case; and on what, with which disk and time."""
    from tune_cropshield.outcome.settings_in_words import fine_tuning
    from tune_cropshield.search.prepare import networks_in_words
    from tune_cropshield.search.views.view import short

    space, plan, resources = planned.space, planned.plan, planned.resources
    settings = space.search
    for note in planned.notes:
        say(console, note)
    at_once = f"{words.counted(resources.concurrent_trials, 'trial')} at once"
    say(console, f"{networks_in_words(space)} on {resources.device}, {at_once}")
    if apart := fine_tuning(space.trial):
        say(console, apart)
    say(console, "searched:")
    nested = [len(name) + 2 for tables in space.when.values() for ranges in tables.values() for name in ranges]
    width = max([16, *map(len, space.space), *nested])
    for name, domain in space.space.items():
        say(console, f"  {name:{width}} {domain.describe()}")
    for choice, tables in space.when.items():
        for value, ranges in tables.items():
            say(console, f"  where {choice} = {value}:")
            for name, domain in ranges.items():
                say(console, f"    {name:{width - 2}} {domain.describe()}")
    for families, pairs in _pairs(plan, settings.pairs == "all").items():
        of_families = f" where {' or '.join(families)}" if len(families) < max(len(plan.families), 1) else ""
        say(console, f"pairs (micro-batch x accumulation){of_families}:")
        for batch, made in pairs.items():
            say(console, f"  effective batch {batch:4}: {', '.join(str(pair) for pair in made)}")
    if plan.source == "estimate":
        say(console, "  (estimated: the search measures them first)")
    for note in plan.notes:
        say(console, f"  ({note})")
    if planned.starts:
        say(console, "tried first:")
    for number, start in enumerate(planned.starts):
        say(console, f"  trial {number}: " + ", ".join(f"{name} {short(value)}" for name, value in start.items()))
    for note in planned.reference:
        say(console, f"  ({note})")
    say(console, f"searched for: the best {space.goal.name}")
    say(console, _pruning(settings))
    if settings.num_parts > 1:
        kind = "folds" if settings.folds > 1 else "seeds"
        say(console, f"each trial: {settings.num_parts} {kind} one after another, its value is their mean")
    parts = f"{words.counted(settings.num_parts, 'part')} x " if settings.num_parts > 1 else ""
    say(
        console,
        f"worst case: {words.counted(settings.trials, 'trial')} x {parts}{words.counted(settings.epochs, 'epoch')} = "
        f"{words.counted(settings.trials * settings.trial_epochs, 'epoch')}, if none is stopped early",
    )
    if planned.expected is None:
        say(console, "no --data given: photographs, disk and time are not estimated")
        return
    expected = planned.expected
    shares = [expected.shares] if expected.shares is not None else []
    for line in (expected.photographs, *expected.remarks, expected.disk, expected.time, *shares):
        say(console, line)
