"""`search`: from a space, photographs and a budget to the best configuration."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tune_cropshield.config.places import cache_dir, find_space, is_made_for
from tune_cropshield.config.space import SearchSpace, load_space
from tune_cropshield.data.folder import check_folder
from tune_cropshield.device import find_device, gpus_free_mib
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made, told_when_full
from tune_cropshield.search.prepare import device_and_card, plan_for, prepare
from tune_cropshield.search.resources import divide

if TYPE_CHECKING:
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.search.views.view import SearchView

MAY_CHANGE_ON_RESUME = ("trials", "time_budget", "trials_per_gpu")


def run(args: argparse.Namespace) -> int:
    """Searches, or with --dry-run says what would be searched."""
    console = Console(soft_wrap=True, highlight=False)
    if args.dry_run and args.json_lines:
        raise UserError("--dry-run prints a plan for people: leave out --json-lines")
    space = _resumed_space(args) if args.resume else _new_space(args)
    out = (
        args.out
        or Path("results/runs")
        / f"{Path(args.space or space.trial.get('model', 'search')).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    if not args.resume and not args.dry_run:
        from tune_cropshield.search.folder import check_new

        check_new(out)
        check_can_be_made(out, "--out")
    if space.data.dir and not args.dry_run:
        check_folder(Path(space.data.dir))
    if space.search.device == "cuda" and not gpus_free_mib():
        find_device("cuda")  # says why not, before anything is started
    lent = None if args.resume or args.space or args.model is None else _lent_space(args.model)
    if args.dry_run:
        if lent is not None:
            console.print(lent)
        _print_plan(space, console)
        return 0
    from tune_cropshield.search.views.choose import view_for

    view = view_for(console, args.quiet, args.json_lines)
    if lent is not None:
        view.note(lent)
    with told_when_full(out):
        return _search(space, out.absolute(), out, args, view)


def _search(space: SearchSpace, out: Path, shown_out: Path, args: argparse.Namespace, view: SearchView) -> int:
    from tune_cropshield.outcome.export import write_best
    from tune_cropshield.outcome.ledger import write_ledger
    from tune_cropshield.search import folder as files
    from tune_cropshield.search.context import begin_search
    from tune_cropshield.search.run import has_result, run_search

    began = time.time()
    found = prepare(space, cache_dir(), view)
    files.make_folder(out)
    with files.locked(out):
        if not args.resume:
            files.check_new(out)
        search = begin_search(found, out, view, resume=args.resume, command=args.argv, ray_address=args.ray_address)
        view.note(f"board: tensorboard --logdir {shlex.quote(str(shown_out))}")
        outcome = run_search(search)
        if has_result(outcome.study):
            write_best(out)
        ledger = write_ledger(out, found.resources.concurrent_trials, began, time.time())
        report = report_line(out, shown_out, found.cache_dir, found.data)
    return _conclude(outcome, found.space, out, shown_out, view, (ledger, report))


def report_line(out: Path, shown_out: Path, cache: Path, data: LeafData) -> str:
    """Writes report.html and returns a line that says where it is, or why it is not: the search's results are safe
    either way.
    """
    try:
        from tune_cropshield.outcome.report import write_report

        return f"report: {shown_out / write_report(out, cache, data).name}"
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return (
            f"report.html could not be written ({why}); try again:  python -m tune_cropshield report "
            f"{shlex.quote(str(shown_out))}"
        )


def _new_space(args: argparse.Namespace) -> SearchSpace:
    """Returns the space of a new search, the command line's wishes over the file's."""
    path = find_space(args.space, args.model)
    search: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("trials", "epochs", "time_budget", "seed", "device", "sampler", "vram")
        if getattr(args, name) is not None
    }
    if args.trials_per_gpu is not None:
        search["trials_per_gpu"] = args.trials_per_gpu
    trial = {name: getattr(args, name) for name in ("model", "image_size") if getattr(args, name) is not None}
    data = {"dir": str(args.data.absolute())} if args.data is not None else {}
    return load_space(path, {"search": search, "trial": trial, "data": data})


def _lent_space(model: str) -> str | None:
    """Returns a sentence on where the ranges come from when none are shipped for `model`, else None."""
    path = find_space(None, model)
    if is_made_for(path, model) or load_space(path).trial.get("model") == model:
        return None
    return (
        f"no search space is shipped for {model}: its other settings and ranges are those of {path.name}; give your "
        "own with --space FILE"
    )


def _resumed_space(args: argparse.Namespace) -> SearchSpace:
    """Returns the space of the search in --out; only how long it goes on may be said anew."""
    from tune_cropshield.search import folder as files

    if args.out is None:
        raise UserError("--resume needs --out: the folder of the search to go on with")
    if not (args.out / files.SETTINGS).exists():
        raise UserError(f"{args.out} holds no search to go on with ({files.SETTINGS} is missing)")
    others = [
        f"--{name.replace('_', '-')}"
        for name in ("data", "space", "model", "image_size", "vram", "epochs", "seed", "device", "sampler")
        if getattr(args, name) is not None
    ]
    if others:
        raise UserError(
            f"--resume takes the search's settings from {args.out / files.SETTINGS}: leave out {' '.join(others)}"
        )
    search: dict[str, Any] = {
        name: getattr(args, name) for name in MAY_CHANGE_ON_RESUME if getattr(args, name) is not None
    }
    return load_space(args.out / files.SETTINGS, {"search": search})


def _print_plan(space: SearchSpace, console: Console) -> None:
    """Says what would be searched: space, pairs, rungs, worst case."""
    from tune_cropshield.search.start_points import start_points
    from tune_cropshield.search.views.view import SearchView, short
    from tune_cropshield.training.model_checks import check_image_sizes

    trial, settings = space.trial_config(), space.search
    check_image_sizes(trial)
    device, card = device_and_card(space)
    resources = divide(device, settings.trials_per_gpu, settings.trials)
    plan = plan_for(space, resources, card, None, SearchView())
    console.print(
        f"{trial.model} at {trial.image_size} px on {resources.device}, {resources.concurrent_trials} trials at once"
    )
    console.print("searched:")
    for name, domain in space.space.items():
        console.print(f"  {name:16} {domain.describe()}")
    console.print("pairs (micro-batch x accumulation):")
    for batch in plan.effective_batches:
        pairs = plan.pairs[batch] if settings.pairs == "all" else plan.pairs[batch][:1]
        console.print(f"  effective batch {batch:4}: {', '.join(str(pair) for pair in pairs)}")
    if plan.source == "estimate":
        console.print("  (estimated: a search measures them first)")
    console.print("tried first:")
    for number, start in enumerate(start_points(space, plan)):
        console.print(f"  trial {number}: " + ", ".join(f"{name} {short(value)}" for name, value in start.items()))
    rungs = ", ".join(str(rung) for rung in settings.rungs) or "none"
    console.print(f"rungs: after epochs {rungs}, the best 1 in {settings.reduction_factor:g} go on")
    console.print(
        f"worst case: {settings.trials} trials x {settings.epochs} epochs = {settings.trials * settings.epochs} "
        "epochs, were none pruned"
    )


def _conclude(
    outcome: Any, space: SearchSpace, out: Path, shown_out: Path, view: SearchView, more: Sequence[str]
) -> int:
    """Says what came of it, `more` at the end, and returns the exit code."""
    from tune_cropshield.outcome.summary import summary_facts, summary_lines
    from tune_cropshield.search.start_points import reference_differs

    guide = "the setting nearest to the guide's" if reference_differs(space) else "the guide's setting"
    lines = [*summary_lines(outcome.study, out, shown_out, guide), *more]
    resume = f"python -m tune_cropshield search --out {shlex.quote(str(shown_out))} --resume"
    if outcome.stopped:
        lines.append(f"ended early: {outcome.stopped}. Go on:  {resume}")
    view.result(lines, {**summary_facts(outcome.study, out), "stopped": outcome.stopped})
    if outcome.interrupted:
        return 130
    return 1 if outcome.failed or not any(trial.intermediate_values for trial in outcome.study.trials) else 0
