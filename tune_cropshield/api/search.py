"""`search`: from a space, photographs and a budget to the best configuration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tune_cropshield.api.arguments import (
    AnyColumns,
    AnyPath,
    DeviceChoice,
    Progress,
    columns_as_flag,
    command_line,
    path_of,
    view_of,
    with_whole_paths,
)
from tune_cropshield.api.choice import choice_notes, follows_time
from tune_cropshield.api.results import SearchResults, read_results
from tune_cropshield.api.space import RUNS, AnySpace, known_before, new_space
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.space import SearchSpace, with_choices_called
from tune_cropshield.config.timm_names import PREFIX
from tune_cropshield.data.sources import check_photographs
from tune_cropshield.device import find_device, gpus_free_mib
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_apart, check_can_be_made, make_free_folder, raising_disk_full
from tune_cropshield.shell import command

if TYPE_CHECKING:  # half a second to import: a faulty space is told about before
    from tune_cropshield.api.finish import Finish
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.search.context import Search
    from tune_cropshield.search.knowledge import Knowledge
    from tune_cropshield.search.run import SearchOutcome
    from tune_cropshield.search.views.view import SearchView


def search(
    *,
    data: AnyPath | None = None,
    labels: AnyPath | None = None,
    columns: AnyColumns | None = None,
    train: AnyPath | None = None,
    val: AnyPath | None = None,
    test: AnyPath | None = None,
    space: AnySpace | None = None,
    model: str | None = None,
    image_size: int | None = None,
    vram: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    time_budget: str | None = None,
    finish: bool | None = None,
    out: AnyPath | None = None,
    seed: int | None = None,
    device: DeviceChoice | None = None,
    trials_per_gpu: int | Literal["auto"] | None = None,
    sampler: str | None = None,
    metric: str | None = None,
    stop_when_flat: bool | None = None,
    learn_from: AnyPath | Sequence[AnyPath] | None = None,
    from_scratch: bool = False,
    quick: bool = False,
    baseline: bool | None = None,
    ray_address: str | None = None,
    resume: bool = False,
    progress: Progress = True,
) -> SearchResults:
    """Searches for the setting that is best on the validation photographs; writes it, weights and a report to `out`.

    Ctrl-C, SIGTERM or the hang-up of the terminal ends the search within 10 s with what it has; the results are
    returned with `interrupted` set. What is left out is as the space says. The arguments are the flags of the command
    line, and messages name them so.

    Args:
        data: One sub-folder of photographs per class; with `labels`, the folder that its paths begin in. Left out
            without a table too, a small synthetic data set.
        labels: A table (.csv, .parquet, .jsonl) with a row per photograph: path, label, and if you like split, group,
            fold and weight.
        columns: Which columns of the table these are, where they have other names: {"path": "image_id"}, or as the
            command line has it, "path=image_id,label=disease".
        train, val, test: The folders of your own split, with one sub-folder per class each, instead of `data`; `test`
            may be left out.
        space: A search space: a path, the name of a shipped one, a dict with a file's tables, or a SearchSpace like
            `results.settings`. Left out, one is chosen for the photographs, the machine and `model`.
        model: tiny_cnn, cropshield_cnn, a classifier of torchvision, timm:NAME, or your own as file.py:name.
        image_size: The side of the training images, in px.
        vram: The GPU memory budget: an amount like "8GB", rtx4060-laptop, rtx3050-laptop, or auto for what is free.
        trials: In all; with `resume`, more than before extends the search.
        epochs: Of a trial that is never pruned.
        time_budget: For everything, report included, and for all starts together, like "2h" or "90m". A third is for
            the trials, and the rest for training the winner on, for as many epochs as fit.
        finish: Train the winner on after the trials, in what they leave of the time budget, or 4 times as long as the
            longest trial; left out, where there is a time budget.
        out: The search's folder, new or empty; left out, results/runs/NAME-TIME.
        seed: Of the sampler and of every trial.
        device: "cpu", "cuda" or "auto".
        trials_per_gpu: How many trials at once on each GPU (on the CPU, when there is none), or "auto".
        sampler: What proposes the settings: "tpe", "random", "gp", or your own as "file.py:name".
        metric: What is searched for: "val_acc", "val_macro_f1", "val_balanced_acc", "val_loss", "val_auc", or your own
            as "file.py:name". The best epoch, pruning, the sampler and the winner all go by it.
        stop_when_flat: End when more trials are not expected to gain more than the noise of the validation accuracy.
        learn_from: Earlier searches' folders: their best settings are tried first, and all of them guide the sampler.
            Left out, those of the same network and optimizer in results/runs and beside `out`.
        from_scratch: Learn from none.
        quick: A small search that ends after some minutes: few and short trials, of any space. What is given beside it
            goes before.
        baseline: False leaves out the reference setting, or the space's own [baseline]: trial 0 is one like the
            others, and no gain is told. So it is for networks that have no reference setting.
        ray_address: A running Ray cluster to join, which shares the folders.
        resume: Continue the search in `out`; left out, with the last one below results/runs of the same settings.
            The arguments may be those that it was begun with. Only `trials`, `time_budget`, `finish`, `trials_per_gpu`
            and `stop_when_flat` may be others, and `data`, `labels` and so on where the photographs have moved.
        progress: True shows a live table on a terminal and in Jupyter (with ipywidgets), and lines elsewhere; False
            shows nothing; a SearchView shows it in another way.

    Raises:
        ConfigError: With every fault of the space and the arguments.
        DataError: The photographs cannot be trained on.
        DeviceError: The device is not there, or nothing fits its memory.
        UserError: `out` cannot take this search.
        DiskFull: Something could not be written; what there is is whole, and `resume` goes on.
        RunFailure: The search itself failed, as when Ray does not start.
    """
    began = time.monotonic()
    settings = {
        "data": data,
        "labels": labels,
        "columns": columns,
        "train": train,
        "val": val,
        "test": test,
        "space": space,
        "model": model,
        "image_size": image_size,
        "vram": vram,
        "trials": trials,
        "epochs": epochs,
        "time_budget": time_budget,
        "finish": finish,
        "seed": seed,
        "device": device,
        "trials_per_gpu": trials_per_gpu,
        "sampler": sampler,
        "metric": metric,
        "stop_when_flat": stop_when_flat,
        "learn_from": learn_from,
        "from_scratch": from_scratch or None,
        "quick": quick or None,
        "baseline": baseline,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    folder = path_of(out, "--out") if out is not None else None
    if ray_address is not None and not (isinstance(ray_address, str) and ray_address):
        raise UserError(f"--ray-address: must be an address like host:port, but got {ray_address!r}")
    if resume:
        from tune_cropshield.api.resume import is_finished, resumed_search

        view = view_of(progress)
        resumed = resumed_search(folder, given, view)
        folder, found, named, knowledge = resumed.folder, resumed.space, True, None
        _check_before_anything_starts(found, folder, resume, named)
        if is_finished(folder, found):
            return _tell_that_it_is_finished(folder, found, view)
        view.note(resumed.note)
    else:
        found, named = _with_whole_paths(new_space(given)), folder is not None
        if folder is None:
            folder = RUNS / f"{_name(space, found)}-{time.strftime('%Y%m%d-%H%M%S')}"
        _check_before_anything_starts(found, folder, resume, named)
        knowledge, notes = known_before(found, given, folder)
        view = view_of(progress)
        for note in [*choice_notes(given, found), *notes]:
            view.note(note)
    said = {**given, "space": space if isinstance(space, str | Path) else None}
    if columns is not None:
        said["columns"] = columns_as_flag(columns)
    for name in ("finish", "stop_when_flat", "baseline"):
        if given.get(name) is False:
            said[f"no_{name}"] = True
    words = command_line("search", **said, out=out, ray_address=ray_address, resume=resume)
    with raising_disk_full(folder):
        by_time = not resume and follows_time(given)
        return _search(found, folder, named, view, resume, words, ray_address, knowledge, began, by_time)


def _with_whole_paths(space: SearchSpace) -> SearchSpace:
    """Returns `space` with its photographs and weights as seen from the root: it may be continued from elsewhere."""
    weights = space.trial.get("pretrained")
    space = space.model_copy(update={"data": with_whole_paths(space.data)})
    if isinstance(weights, str):
        space = space.model_copy(update={"trial": {**space.trial, "pretrained": str(Path(weights).absolute())}})
    files = [value for domain in space.domains().get("pretrained", ()) for value in domain.ends]
    whole = {file: str(Path(file).absolute()) for file in files if isinstance(file, str)}
    return with_choices_called("pretrained", whole, space)


def _name(space: AnySpace | None, found: SearchSpace) -> str:
    """Returns the first half of the name of a search's folder: what was searched, or the model."""
    name = space if isinstance(space, str | Path) else str(found.trial.get("model", "search")).removeprefix(PREFIX)
    return Path(name).stem


def _check_before_anything_starts(space: SearchSpace, folder: Path, resume: bool, named: bool) -> None:
    """Raises UserError for a folder, photographs or a device that cannot be used."""
    from tune_cropshield.search.folder import check_new

    check_apart(space.data.folders, cache_dir(), folder)
    if not resume:
        if named:
            check_new(folder)
        check_can_be_made(folder, "--out")
    check_photographs(space.data, folds=space.search.folds)
    if space.search.device == "cuda" and not gpus_free_mib():
        find_device("cuda")  # says why not


def _tell_that_it_is_finished(folder: Path, space: SearchSpace, view: SearchView) -> SearchResults:
    """Says that nothing is left to do, and returns what the search in `folder` has found."""
    from tune_cropshield.api.finish import Finish
    from tune_cropshield.api.resume import finished_line
    from tune_cropshield.outcome.evaluation import read_record
    from tune_cropshield.outcome.summary import summary_facts
    from tune_cropshield.outcome.trained import BEST
    from tune_cropshield.search.journal import read_study

    record = read_record(folder / BEST, "test")
    facts = {**summary_facts(read_study(folder), folder), **Finish().facts, "stopped": None}
    view.result([finished_line(folder, space)], facts)
    return replace(read_results(folder.absolute()), test_acc=record["accuracy"] if record is not None else None)


def _search(
    space: SearchSpace,
    shown: Path,
    named: bool,
    view: SearchView,
    resume: bool,
    words: Sequence[str],
    ray_address: str | None,
    knowledge: Knowledge | None,
    began: float,
    by_time: bool,
) -> SearchResults:
    """Runs the search.

    Args:
        shown: its folder as the user named it, or where it is not `named`, as far as it is free.
        words: the command line behind the program's name.
        began: of time.monotonic, when the search was asked for.
        by_time: as many trials are searched as a time budget holds.
    """
    from tune_cropshield.api.expectation import told_before
    from tune_cropshield.api.finish import (
        Finish,
        look_at_test_photographs,
        time_budget,
        too_short_to_search,
        train_winner_on,
    )
    from tune_cropshield.data.split_file import read_split
    from tune_cropshield.outcome.export import write_best
    from tune_cropshield.outcome.ledger import write_ledger
    from tune_cropshield.search import folder as files
    from tune_cropshield.search.context import begin_search
    from tune_cropshield.search.endings import FAILED, FINISHED
    from tune_cropshield.search.prepare import prepare
    from tune_cropshield.search.run import SearchOutcome, ended_by_signals, run_search
    from tune_cropshield.search.state import INTERRUPTED, State, write_end

    began_at = time.time() - (time.monotonic() - began)
    with ExitStack() as stack:
        if resume:  # before anything that takes long: `stop` and others see that it runs
            files.make_folder(shown.absolute())
            stack.enter_context(files.locked(shown.absolute()))
        prepared = prepare(space, cache_dir(), view, read_split(shown) if resume else None)
        if not named:
            shown = make_free_folder(shown)
        folder = shown.absolute()
        files.make_folder(folder)
        if not resume:
            stack.enter_context(files.locked(folder))
            files.check_new(folder)
        budget = time_budget(prepared.space, folder, began)
        if resume and budget is not None:
            view.note(budget.told())
        if space.data.given and not resume:
            planned, estimate = told_before(prepared, budget if by_time else None)
            prepared = replace(prepared, space=planned)
            view.note(estimate)
        begun = begin_search(
            prepared,
            folder,
            view,
            resume=resume,
            command=words,
            ray_address=ray_address,
            knowledge=knowledge,
            budget=budget,
        )
        view.note(f"TensorBoard:  {command('board', shown)}")
        with ended_by_signals(begun):
            if (reason := too_short_to_search(begun)) is not None:
                view.note(reason)
                outcome = SearchOutcome(begun.study, stopped=None, interrupted=False, failed=False)
            else:
                outcome = run_search(begun)
            finish = Finish()
            finishes = prepared.space.search.finishes and not (outcome.interrupted or outcome.failed)
            if finishes:
                finish = train_winner_on(begun, lambda: _write_results(begun, shown))
            interrupted = begun.early_end.interrupted
            if finishes and interrupted:  # that the trials' time was used up is not why
                outcome = replace(outcome, stopped="the final training was interrupted", go_on_with=())
            results = read_results(folder, stopped=outcome.stopped, interrupted=interrupted)
            if results.best is not None:
                write_best(folder)
                if finishes and not interrupted:
                    look_at_test_photographs(begun, finish)
            failed = outcome.failed or not (interrupted or results.best is not None)
            results = replace(results, failed=failed, test_acc=finish.test_acc)
            ledger = write_ledger(folder, prepared.resources.concurrent_trials, began_at, time.time())
            report = report_line(folder, shown, prepared.data) if results.trials else "no report: no trial was searched"
            _show_result(outcome, folder, shown, prepared.space, view, finish, (ledger, report))
            how = FAILED if failed else INTERRUPTED if interrupted else FINISHED
            write_end(folder, State(how, "" if interrupted else outcome.stopped or ""))
    return results


def _write_results(search: Search, shown: Path) -> None:
    """Writes best/ and the report of what the trials have found, before the final training: a kill may come."""
    from tune_cropshield.outcome.export import write_best
    from tune_cropshield.search.run import has_result

    if has_result(search.study):
        write_best(search.folder)
        report_line(search.folder, shown, search.data)


def report_line(folder: Path, shown: Path, data: LeafData) -> str:
    """Writes report.html and returns a line that says where it is, or why it is not: the results are safe anyway."""
    from tune_cropshield.outcome.report import write_report

    try:
        return f"report: {shown / write_report(folder, cache_dir(), data).name}"
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return f"report.html could not be written ({why}); try again:  {command('report', shown)}"


def _show_result(
    outcome: SearchOutcome,
    folder: Path,
    shown: Path,
    space: SearchSpace,
    view: SearchView,
    finish: Finish,
    more: Sequence[str],
) -> None:
    """Says what came of it, `more` at the end."""
    from tune_cropshield.outcome.summary import summary_facts, summary_lines
    from tune_cropshield.search.early_end import BUDGET_USED_UP
    from tune_cropshield.search.start_points import name_of_trial_0, reference_differs

    reference = "the setting nearest to the reference" if reference_differs(space) else name_of_trial_0(space)
    lines = [*summary_lines(outcome.study, folder, shown, reference), *finish.lines, *more]
    if outcome.stopped:
        again = command("search", "--out", shown, "--resume", *outcome.go_on_with)
        how = "" if outcome.stopped == BUDGET_USED_UP else "ended early: "
        lines.append(f"{how}{outcome.stopped}. To continue:  {again}")
    facts: dict[str, Any] = {**summary_facts(outcome.study, folder), **finish.facts, "stopped": outcome.stopped}
    view.result(lines, facts)
