"""Which search `resume` means, whether it is still the one that was begun, and what is left of it."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import path_of
from tune_cropshield.api.space import OF_SEARCH, OF_TRIAL, RUNS, new_space
from tune_cropshield.config.differences import difference, differences, is_same, said, settings_by_name
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.space import SETTINGS, SearchSpace, load_space
from tune_cropshield.config.starts import usual_starts
from tune_cropshield.config.units import counted
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.generated import drawn_leaves_folder
from tune_cropshield.data.left_out import read_left_out
from tune_cropshield.data.split_file import read_split, what_changed
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError

if TYPE_CHECKING:  # half a second to import: a faulty space is told about before
    from tune_cropshield.search.begun import Begun
    from tune_cropshield.search.views.view import SearchView

MAY_CHANGE = ("trials", "time_budget", "finish", "trials_per_gpu", "stop_when_flat")  # and where the photographs lie


@dataclass(frozen=True)
class Resumed:
    """A search to go on with.

    space: its settings, with what was said anew. note: its name, when it was begun and how far it has come, in words.
    """

    folder: Path
    space: SearchSpace
    note: str


@dataclass(frozen=True)
class Differences:
    """What differs between a search that was begun and what is asked for.

    settings: a few words for each setting. flags: the flags that say otherwise. photographs: which of them are gone,
    new or changed, "" where all are the same. place: where they lie.
    """

    settings: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    photographs: str = ""
    place: str = ""

    def __bool__(self) -> bool:
        return bool(self.settings or self.photographs)

    @property
    def weight(self) -> int:
        """How far apart the two are; photographs of which none is the same weigh more than all settings."""
        return len(self.settings) + (100 * self.photographs.startswith("all ") or bool(self.photographs))

    def __str__(self) -> str:
        photographs = [f"{self.photographs} (in {self.place})"] if self.photographs else []
        return "; ".join([*self.settings, *photographs])

    @property
    def remedy(self) -> str:
        """What makes both the same."""
        remedies = [f"leave out {' '.join(self.flags)}"] if self.flags else []
        remedies += ["set the file back"] if self.settings and not self.flags else []
        remedies += ["put the photographs back as they were"] if self.photographs else []
        return " and ".join(remedies)


def resumed_search(out: Path | None, given: Mapping[str, Any], view: SearchView) -> Resumed:
    """Returns the search to go on with: the one in `out`, else the last one below results/runs of the same settings.

    Of several, that is the newest which is not finished, else the newest. Those come first that were begun with no
    arguments but the `given` ones.

    Args:
        given: the arguments of `search` that were given. They must be those of the search as far as they decide what
            is compared; how long it goes on, how many trials at once and where its photographs lie may be new.
        view: shows that photographs are looked at.

    Raises:
        UserError: there is no such search, it is running, its photographs are gone, or something differs: with all
            that does, by name and with both values.
    """
    from tune_cropshield.search.begun import read_begun

    contents = _Contents(view)
    if out is not None:
        begun = read_begun(out)
        _check_not_running(out)
        differ = _differences(begun, given, contents)
        if differ:
            raise UserError(_refusal(begun, differ))
    else:
        begun = _last_of_same(given, contents)
        _check_not_running(begun.folder)
    space = _with_what_may_change(begun, given)
    if "data" not in given and (changed := _photographs(begun, space.data.dir, contents)):
        raise UserError(_refusal(begun, Differences(photographs=changed, place=space.data.dir)))
    return Resumed(begun.folder, space, _note(begun, space))


def _refusal(begun: Begun, differ: Differences) -> str:
    """Returns what is said of a search that was named and cannot be gone on with."""
    new_one = "start a new search with another --out"
    if not differ.settings:
        told = f"{differ.place}: since this search was begun, {differ.photographs}. Put them back as they were"
        return f"{told}, or {new_one}"
    return f"{begun} was begun with other settings: {differ}. To go on with it, {differ.remedy}; or {new_one}"


def _check_not_running(folder: Path) -> None:
    from tune_cropshield.search.folder import locked

    with locked(folder):
        pass


class _Contents:
    """The photographs of folders, by path and SHA-256, each folder read once."""

    def __init__(self, view: SearchView) -> None:
        self._view = view
        self._known: dict[tuple[Any, ...], dict[str, str]] = {}

    def of(self, space: SearchSpace, place: str) -> dict[str, str]:
        """Returns {path: SHA-256}, as the [data] of `space` lists them. Raises DataError."""
        config = space.data
        key = (place, config.class_depth, *sorted(config.merge.items()))
        if key not in self._known:
            with ExitStack() as stack:
                if not _same_place(place, config.dir):  # else their digests are known
                    stack.enter_context(self._view.steps(f"looking at the photographs in {place}"))
                found = scan_folder(Path(place), cache_dir() / "digests.json", config.class_depth, config.merge)
            self._known[key] = {file.path: file.digest for file in found.files}
        return self._known[key]


def _photographs(begun: Begun, place: str, contents: _Contents) -> str:
    """Returns which photographs in `place` are not those that a search was begun on, "" where all are the same.

    A search of a version that kept no split.csv is compared when they are decoded.
    """
    rows = read_split(begun.folder)
    if rows is None or not place:
        return ""
    unreadable = {thing.path for thing in read_left_out(begun.folder) if thing.kind == "unreadable"}
    there = contents.of(begun.space, place)
    return what_changed(rows, {path: digest for path, digest in there.items() if path not in unreadable})


def _differences(begun: Begun, given: Mapping[str, Any], contents: _Contents | None) -> Differences:
    """Returns what differs from what is asked for.

    contents: None leaves the photographs out.
    """
    then = settings_by_name(begun.space)
    told: dict[str, str] = {}  # what differs -> in which words
    if "space" in given:
        now = _said_by_space(begun, given)
        told |= {
            name: difference(name, then[name], value)
            for name, value in settings_by_name(now).items()
            if name not in MAY_CHANGE and not _is_same(name, then.get(name), value)
        }
        if now.start != usual_starts(now):
            told |= {f"start {number}": words for number, words in _starts_differ(begun.space, now)}
    for name, value in given.items():
        if name in (*MAY_CHANGE, "data", "space"):
            continue
        if name in then:
            if not _is_same(name, then[name], value):
                told[name] = difference(name, then[name], value)
        elif (words := _argument_differs(begun, name, value)) is not None:
            told[name] = words
    flags = [f"--{name.replace('_', '-')}" for name in given if name in told]
    flags = ["--space", *flags] if told.keys() - given.keys() else flags
    if given.get("baseline") is False:
        flags = ["--no-baseline" if flag == "--baseline" else flag for flag in flags]
    place = str(path_of(given["data"], "--data").absolute()) if "data" in given else ""
    photographs = _photographs(begun, place, contents) if contents is not None else ""
    return Differences([*_own_files(begun), *told.values()], flags, photographs, place)


def _is_same(name: str, then: object, now: object) -> bool:
    if name == "device" and "auto" in (then, now):
        return find_device("auto") in (then, now) or then == now
    return is_same(name, then, now)


def _said_by_space(begun: Begun, given: Mapping[str, Any]) -> SearchSpace:
    """Returns the space that was given as it would have been searched at the start of `begun`.

    What came as a flag then and is left out now is as it was.
    """
    then = settings_by_name(begun.space)
    left_out = {
        name: then[name]
        for name in (*OF_SEARCH, *OF_TRIAL)
        if name not in given and (begun.given is None or name in begun.given)
    }
    return new_space({**left_out, **given})


def _starts_differ(then: SearchSpace, now: SearchSpace) -> list[tuple[int, str]]:
    """Returns which [[start]] tables differ: (number, in words)."""
    if len(then.start) != len(now.start):
        return [(0, f"[[start]] ({len(then.start)} then, {len(now.start)} now)")]
    pairs = enumerate(zip(then.start, now.start, strict=True), 1)
    return [
        (number, f"[[start]] {number}: {', '.join(differ)}")
        for number, (old, new) in pairs
        if (differ := differences(old, new))
    ]


def _argument_differs(begun: Begun, name: str, value: object) -> str | None:
    """Returns in words how an argument that is no setting differs from that of the start; None where it does not."""
    from tune_cropshield.search.earlier import read_knowledge

    sources = [*read_knowledge(begun.folder).sources]
    if name == "from_scratch":
        return f"from_scratch (it has learnt from {', '.join(sources)})" if sources else None
    if name == "learn_from":
        named = [value] if isinstance(value, str | Path) else list(value) if isinstance(value, Sequence) else []
        now = [str(path_of(one, "--learn-from").absolute()) for one in named]
        if {*map(os.path.realpath, sources)} == {*map(os.path.realpath, now)}:
            return None
        return difference(name, ", ".join(sources), ", ".join(now))
    if begun.given is None or name in begun.given:
        return None
    return f"{name} (not given then, {said(value)} now)"


def _own_files(begun: Begun) -> list[str]:
    """Returns which files of the user's own that the search uses hold something else than when it was begun."""
    from tune_cropshield.search.journal import read_study
    from tune_cropshield.search.same_search import own_files_differ, spelled_settings

    try:
        spelled = spelled_settings(read_study(begun.folder))
    except UserError:  # killed before it had a journal, or damaged: told where it is opened
        return []
    return own_files_differ(spelled, begun.space) if spelled is not None else []


def _with_what_may_change(begun: Begun, given: Mapping[str, Any]) -> SearchSpace:
    """Returns the settings of a search with what may be new, of the arguments and of the space that was given.

    What a start has been told by an argument stays before what the space's file says.
    """
    anew = {name: given[name] for name in MAY_CHANGE if name in given}
    place = str(path_of(given["data"], "--data").absolute()) if "data" in given else ""
    if "space" in given:
        now = _said_by_space(begun, given)
        told = begun.given_later | (begun.given if begun.given is not None else frozenset(MAY_CHANGE))
        of_file = now.search.model_fields_set - told
        anew = {name: getattr(now.search, name) for name in MAY_CHANGE if name in of_file} | anew
        if not place and now.data.dir and Path(now.data.dir).is_dir():
            place = str(Path(now.data.dir).absolute())
    if place and _same_place(place, begun.space.data.dir):
        place = ""  # as it was written
    space = load_space(begun.folder / SETTINGS, {"search": anew, "data": {"dir": place} if place else {}})
    if Path(space.data.dir).is_dir() or place:
        return space
    if Path(space.data.dir).name == drawn_leaves_folder(cache_dir()).name:  # drawn anew where the cache was emptied
        return space.model_copy(update={"data": space.data.model_copy(update={"dir": ""})})
    raise UserError(f"the photographs of this search are no longer in {space.data.dir}: say where (--data DIR)")


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _last_of_same(given: Mapping[str, Any], contents: _Contents) -> Begun:
    """Returns the last search below results/runs that differs in nothing; raises UserError where there is none."""
    from tune_cropshield.search.begun import searches_below

    searches, faults = searches_below(RUNS)
    if not searches:
        unread = f" (one cannot be read: {faults[0]})" if faults else ""
        raise UserError(
            f"--resume: there is no search in {RUNS} to go on with{unread}: name its folder (--out DIR), or leave out "
            "--resume"
        )
    compared = [(search, _differences(search, given, None)) for search in searches]
    fewest = min(len(differ.settings) for _, differ in compared)
    near = [search for search, differ in compared if len(differ.settings) == fewest]
    compared = [(search, _differences(search, given, contents)) for search in near]
    same = [search for search, differ in compared if not differ]
    if not same:
        nearest, differ = min(compared, key=lambda one: one[1].weight)  # of equals, the newest
        raise UserError(
            f"--resume: no search in {RUNS} has these settings. The nearest is {nearest}: {differ}. To go on with it, "
            f"{differ.remedy}; for a new search, leave out --resume"
        )
    unsaid = [len(_not_given(search, given)) for search in same]
    same = [search for search, count in zip(same, unsaid, strict=True) if count == min(unsaid)]
    return next((search for search in same if not is_finished(search.folder, search.space)), same[0])


def _not_given(search: Begun, given: Mapping[str, Any]) -> frozenset[str]:
    """Returns the arguments that a search was begun with and that are not given now, of those that must not change."""
    of_start = search.given or frozenset()
    return of_start - given.keys() - {*MAY_CHANGE, "out", "ray_address"}


def _note(begun: Begun, space: SearchSpace) -> str:
    from tune_cropshield.search.journal import JOURNAL, num_started, read_study, unfinished

    study = read_study(begun.folder) if (begun.folder / JOURNAL).is_file() else None
    ended = num_started(study) - len(unfinished(study)) if study is not None else 0
    trials = max(space.search.trials, ended)
    return f"going on with {begun}: {ended} of {counted(trials, 'trial')} {'has' if ended == 1 else 'have'} ended"


def is_finished(folder: Path, space: SearchSpace) -> bool:
    """Tells whether nothing is left to do for the search in `folder` with the settings `space`.

    Every trial and the final training have ended, or the time is used up, and all results were written.
    """
    from tune_cropshield.api.finish import time_budget
    from tune_cropshield.outcome.ledger import read_ledger
    from tune_cropshield.outcome.report import REPORT
    from tune_cropshield.outcome.trained import BEST
    from tune_cropshield.search.final import final_trainings
    from tune_cropshield.search.journal import num_started, read_study, stopped, unfinished
    from tune_cropshield.search.launches import read_starts
    from tune_cropshield.training.fitted import trained_s

    ended_starts = len((read_ledger(folder) or {}).get("starts", []))
    written = ended_starts == len(read_starts(folder)) and (folder / REPORT).exists() and (folder / BEST).is_dir()
    if not written or not _same_place(space.data.dir, load_space(folder / SETTINGS).data.dir):
        return False
    study, settings = read_study(folder), space.search
    budget = time_budget(space, folder, time.monotonic())
    left_s = budget.total_s - budget.spent_s if budget is not None else math.inf
    if left_s <= 0:
        return True
    if num_started(study) < settings.trials or unfinished(study) or stopped(study):
        return False
    if not settings.finishes:
        return True
    finals = final_trainings(folder)
    if not finals or finals[-1].outcome is None or finals[-1].after_trials < num_started(study):
        return False
    return math.isinf(left_s) or left_s <= trained_s(finals[-1].folder)


def finished_line(folder: Path, space: SearchSpace) -> str:
    """Returns what is said of a search that nothing is left to do for, and how it is extended."""
    from tune_cropshield.api.finish import time_budget
    from tune_cropshield.api.results import read_results
    from tune_cropshield.outcome import words
    from tune_cropshield.search.journal import num_started, read_study

    again = f"python -m tune_cropshield search --out {shlex.quote(str(folder))} --resume"
    best, started = read_results(folder).best, num_started(read_study(folder))
    reached = f", best val_acc {words.accuracy(best.val_acc)}" if best is not None else ""
    fewer = f" (no more than --trials {space.search.trials} asks for)" if space.search.trials < started else ""
    told = f"{folder} is finished: {counted(started, 'trial')}{fewer}{reached}"
    if started < space.search.trials and (budget := time_budget(space, folder, time.monotonic())) is not None:
        return f"{told}; {budget.told()}. Go on:  {again} --time-budget LONGER"
    return f"{told}. More trials:  {again} --trials {2 * max(started, 1)}"
