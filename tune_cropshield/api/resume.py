"""Which search `resume` means, whether it is still the one that was begun, and what is left of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import OF_PHOTOGRAPHS, moved_to, path_of, places_of, with_whole_paths
from tune_cropshield.api.choice import follows_time
from tune_cropshield.api.photographs import Photographs, gone, same_places
from tune_cropshield.api.space import OF_SEARCH, OF_TRIAL, RUNS, AnySpace, new_space
from tune_cropshield.config.differences import difference, differences, is_same, said, settings_by_name
from tune_cropshield.config.places import cache_dir, find_space, shipped_spaces
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.config.units import counted, parse_duration
from tune_cropshield.data.generated import drawn_leaves_folder
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.shell import command

if TYPE_CHECKING:  # half a second to import: a faulty space is told about before
    from tune_cropshield.search.begun import Begun
    from tune_cropshield.search.views.view import SearchView

MAY_CHANGE = ("trials", "time_budget", "finish", "trials_per_gpu", "stop_when_flat")  # and where the photographs lie


@dataclass(frozen=True)
class Resumed:
    """A search to continue.

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
    """Returns the search to continue: the one in `out`, else the last one below results/runs of the same settings.

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
    from tune_cropshield.search.folder import check_not_running

    photographs = Photographs(view)
    if out is not None:
        begun = read_begun(out)
        check_not_running(out)
        differ = _differences(begun, given, photographs)
        if differ:
            raise UserError(_refusal(begun, differ))
    else:
        begun = _last_of_same(given, photographs)
        check_not_running(begun.folder)
    space = _with_what_may_change(begun, given)
    moved = places_of(given)
    if not moved and (changed := photographs.changed(begun.folder, space.data, begun.space.data)):
        raise UserError(_refusal(begun, Differences(photographs=changed, place=space.data.place)))
    return Resumed(begun.folder, space, _note(begun, space))


def _refusal(begun: Begun, differ: Differences) -> str:
    """Returns what is said of a search that was named and cannot be continued."""
    new_one = "start a new search with another --out"
    if not differ.settings:
        told = f"{differ.place}: since this search was begun, {differ.photographs}. Put them back as they were"
        return f"{told}, or {new_one}"
    return f"{begun.folder} was begun with other settings: {differ}. To continue it, {differ.remedy}; or {new_one}"


def _differences(begun: Begun, given: Mapping[str, Any], photographs: Photographs | None) -> Differences:
    """Returns what differs from what is asked for.

    photographs: None leaves them out.
    """
    then = settings_by_name(begun.space)
    told: dict[str, str] = {}  # what differs -> in which words
    if "space" in given:
        now, tables = _said_by_space(begun, given), _tables_of(given["space"])
        named = {name for table in ("data", "trial", "space", "search") for name in tables.get(table, {})}
        named |= begun.space.trial.keys() | begun.space.space.keys() | begun.named  # what was removed differs too
        asked = settings_by_name(now)
        named |= {name for name in asked if name.startswith("when.")}  # ranges of a choice's own
        told |= {
            name: difference(name, then.get(name), value)
            for name, value in asked.items()
            if name in named and name not in MAY_CHANGE and not _is_same(name, then.get(name), value)
        }
        if "start" in tables:
            told |= {f"start {number}": words for number, words in _starts_differ(begun.space, now)}
        if not _is_shipped(given["space"]) and (table := differences(begun.space.baseline or {}, now.baseline or {})):
            told["baseline table"] = f"[baseline]: {', '.join(table)}"
    for name, value in given.items():
        if name in (*MAY_CHANGE, *OF_PHOTOGRAPHS, "space"):
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
    moved = moved_to(begun.space.data, given)
    changed, place = "", moved.place if moved is not None else ""
    if photographs is not None and moved is not None:
        changed = photographs.changed(begun.folder, moved, begun.space.data)
    return Differences([*_own_files(begun), *told.values()], flags, changed, place)


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
    quick = {"quick": True} if "quick" in (begun.given or ()) else {}
    return new_space({**quick, **left_out, **given})


def _tables_of(space: AnySpace) -> dict[str, Any]:
    """Returns what a space says itself; of one that is shipped, without what it tries first, which is the version's."""
    if isinstance(space, SearchSpace):
        return space.model_dump(by_alias=True, exclude_none=True)
    if isinstance(space, Mapping):
        return dict(space)
    left_out = ("start", "baseline") if _is_shipped(space) else ()
    return {name: table for name, table in read_toml(find_space(str(space))).items() if name not in left_out}


def _is_shipped(space: AnySpace) -> bool:
    return not isinstance(space, SearchSpace | Mapping) and find_space(str(space)) in shipped_spaces().values()


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
    moved = moved_to(begun.space.data, given)
    if "space" in given:
        now = _said_by_space(begun, given)
        told = begun.given_later | (begun.given if begun.given is not None else frozenset(MAY_CHANGE))
        of_file = now.search.model_fields_set - told
        anew = {name: getattr(now.search, name) for name in MAY_CHANGE if name in of_file} | anew
        if moved is None and now.data.is_there:
            moved = with_whole_paths(now.data)
    if "trials" not in anew and (longer := _longer(begun, anew.get("time_budget", ""))) > 1:
        anew["trials"] = math.ceil(begun.space.search.trials * longer)
    if moved is not None and same_places(moved, begun.space.data) and moved.columns == begun.space.data.columns:
        moved = None  # as it was written
    places = {**moved.places, "columns": moved.columns} if moved is not None else {}
    space = load_space(begun.folder / SETTINGS, {"search": anew, "data": places})
    if space.data.is_there or places:
        return space
    if Path(space.data.dir).name == drawn_leaves_folder(cache_dir()).name:  # drawn anew where the cache was emptied
        return space.model_copy(update={"data": space.data.model_copy(update={"dir": ""})})
    raise UserError(gone("search", space.data))


def _longer(begun: Begun, time_budget: str) -> float:
    """Returns how many times as long a new time budget is, where the trials were as many as the first one held; else 1.

    time_budget: "" for none.
    """
    before = begun.space.search.time_budget
    by_time = begun.given is not None and follows_time(dict.fromkeys(begun.given, True))
    if not (by_time and time_budget and before) or "trials" in begun.given_later:
        return 1.0
    return parse_duration(time_budget) / parse_duration(before)


def _last_of_same(given: Mapping[str, Any], photographs: Photographs) -> Begun:
    """Returns the last search below results/runs that differs in nothing; raises UserError where there is none."""
    from tune_cropshield.search.begun import searches_below

    searches, faults = searches_below(RUNS)
    if not searches:
        unread = f" (one cannot be read: {faults[0]})" if faults else ""
        raise UserError(
            f"--resume: there is no search in {RUNS} to continue{unread}: name its folder (--out DIR), or leave out "
            "--resume"
        )
    compared = _compared(searches, given, None)
    fewest = min(len(differ.settings) for _, differ in compared)
    near = [search for search, differ in compared if len(differ.settings) == fewest]
    compared = _compared(near, given, photographs)
    same = [search for search, differ in compared if not differ]
    if not same:
        nearest, differ = min(compared, key=lambda one: one[1].weight)  # of equals, the newest
        raise UserError(
            f"--resume: no search in {RUNS} has these settings. The nearest is {nearest}: {differ}. To continue it, "
            f"{differ.remedy}; for a new search, leave out --resume"
        )
    unsaid = [len(_not_given(search, given)) for search in same]
    same = [search for search, count in zip(same, unsaid, strict=True) if count == min(unsaid)]
    return next((search for search in same if not is_finished(search.folder, search.space)), same[0])


def _compared(
    searches: Sequence[Begun], given: Mapping[str, Any], photographs: Photographs | None
) -> list[tuple[Begun, Differences]]:
    """Returns what differs from each search; one that what was given cannot be compared with is left out.

    Raises UserError where that is so for all of them.
    """
    compared, faults = [], list[UserError]()
    for search in searches:
        try:
            compared.append((search, _differences(search, given, photographs)))
        except UserError as error:  # the folder is none for this search's [data], or the space does not go with a flag
            faults.append(error)
    if not compared:
        raise faults[0]
    return compared


def _not_given(search: Begun, given: Mapping[str, Any]) -> frozenset[str]:
    """Returns the arguments that a search was begun with and that are not given now, of those that must not change."""
    of_start = search.given or frozenset()
    return of_start - given.keys() - {*MAY_CHANGE, "out", "ray_address"}


def _note(begun: Begun, space: SearchSpace) -> str:
    from tune_cropshield.search.journal import JOURNAL, num_started, read_study, unfinished

    study = read_study(begun.folder) if (begun.folder / JOURNAL).is_file() else None
    ended = num_started(study) - len(unfinished(study)) if study is not None else 0
    trials = max(space.search.trials, ended)
    return f"continuing {begun}: {ended} of {counted(trials, 'trial')} {'has' if ended == 1 else 'have'} ended"


def is_finished(folder: Path, space: SearchSpace) -> bool:
    """Tells whether the search in `folder` has come to its end, and `space` asks for no more than it has done."""
    from tune_cropshield.search.endings import FINISHED
    from tune_cropshield.search.journal import JOURNAL, num_started, read_study
    from tune_cropshield.search.state import state_of

    if not (folder / JOURNAL).is_file():
        return False
    before, study = load_space(folder / SETTINGS), read_study(folder)
    then, now = before.search, space.search
    more = (
        now.trials > max(then.trials, num_started(study)),
        now.time_budget != then.time_budget and _seconds(now.time_budget) > _seconds(then.time_budget),
        now.finishes and not then.finishes,
        then.stop_when_flat and not now.stop_when_flat,
        not same_places(space.data, before.data),
    )
    return not any(more) and state_of(folder, study, then.model_dump()).name == FINISHED


def _seconds(time_budget: str) -> float:
    return parse_duration(time_budget) if time_budget else math.inf


def finished_line(folder: Path, space: SearchSpace) -> str:
    """Returns what is said of a search that nothing is left to do for, and how it is extended."""
    from tune_cropshield.api.finish import time_budget
    from tune_cropshield.api.results import read_results
    from tune_cropshield.search.early_end import BUDGET_USED_UP
    from tune_cropshield.search.journal import num_started, read_study, study_goal
    from tune_cropshield.search.state import state_of

    best, study = read_results(folder).best, read_study(folder)
    started, why = num_started(study), state_of(folder, study, space.search.model_dump()).why
    reached = f", best {best.metric} {study_goal(study).text(best.value)}" if best is not None else ""
    fewer = f" (no fewer than the {space.search.trials} asked for)" if space.search.trials < started else ""
    told = f"{folder} is finished: {counted(started, 'trial')}{fewer}{reached}" + (f"; {why}" if why else "")
    budget = time_budget(space, folder, time.monotonic())
    if why == BUDGET_USED_UP and budget is not None:
        more = []
    elif why and why != BUDGET_USED_UP:
        more = ["--no-stop-when-flat"]
    else:
        more = ["--trials", str(2 * max(started, space.search.trials))]
    if budget is not None:
        told += f" ({budget.told()})"
        more += ["--time-budget", f"{2 * budget.total_s:.0f}s"]
    return f"{told}. To extend it:  {command('search', '--out', folder, '--resume', *more)}"
