"""What is searched: a space's file, name, tables or object, with what was asked for over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import AnyPath, path_of, places_of
from tune_cropshield.api.choice import chosen_tables, no_reference, quick_search
from tune_cropshield.config.places import find_space
from tune_cropshield.config.reference import has_reference
from tune_cropshield.config.registry import checked_name
from tune_cropshield.config.space import SearchSpace, with_choices_called
from tune_cropshield.config.space_file import space_from
from tune_cropshield.config.starts import usual_starts
from tune_cropshield.config.toml_files import read_toml, without_none
from tune_cropshield.errors import ConfigError, UserError

if TYPE_CHECKING:  # half a second to import: a faulty space is told about before
    from tune_cropshield.search.knowledge import Knowledge

AnySpace = AnyPath | Mapping[str, Any] | SearchSpace
OF_SEARCH = (
    *("trials", "epochs", "time_budget", "finish", "seed", "device", "sampler", "vram", "trials_per_gpu"),
    *("stop_when_flat", "baseline", "metric"),
)
OF_TRIAL = ("model", "image_size")
RUNS = Path("results/runs")  # where searches go that are not told where


def new_space(given: Mapping[str, Any]) -> SearchSpace:
    """Returns the space of a new search. A file or tables without a [[start]] get those usual for the optimizer.

    Without a space, it is chosen: for photographs, and for the network where one was asked for, as `families` has it;
    without either, demo.toml.

    Args:
        given: The arguments of `search` that were given: `space`, `data` and `labels` and
            so on, `quick`, and settings that go before the
            space's own.

    Raises:
        ConfigError: With every fault of the space and the arguments.
    """
    space = given.get("space")
    over: dict[str, dict[str, Any]] = {
        "search": {name: given[name] for name in OF_SEARCH if name in given},
        "trial": {name: given[name] for name in OF_TRIAL if name in given},
        "data": places_of(given),
    }
    if isinstance(space, SearchSpace):
        tables, name = without_none(space.model_dump(by_alias=True)), "space"
    elif isinstance(space, Mapping):
        tables, name = without_none(dict(space)), "space"
    elif space is not None:
        path = find_space(str(space))
        tables, name = read_toml(path), str(path)
    else:
        tables, name = chosen_tables(given)
    if given.get("quick"):
        over["search"] = quick_search(tables) | over["search"]
    found = _with_whole_names(_with_known_baseline(space_from(tables, over, name), given))
    if isinstance(space, SearchSpace) or "start" in found.model_fields_set:
        return found
    return found.model_copy(update={"start": usual_starts(found)})


def _with_whole_names(space: SearchSpace) -> SearchSpace:
    """Returns `space` with the files of a user's own losses and the like that are searched under their whole paths.

    A search may be continued from elsewhere. What is not searched has them already.
    """
    for kind in ("loss", "optimizer", "schedule"):
        names = [str(value) for domain in space.domains().get(kind, ()) for value in domain.ends]
        space = with_choices_called(kind, {name: checked_name(kind, name) for name in names}, space)
    return space


def _with_known_baseline(space: SearchSpace, given: Mapping[str, Any]) -> SearchSpace:
    """Returns `space` without a baseline where it names none and there is no reference setting for its network.

    Raises ConfigError where one is asked for.
    """
    if not space.search.baseline or space.baseline is not None or has_reference(space):
        return space
    if given.get("baseline"):
        raise ConfigError([f"--baseline: {no_reference(space)}"])
    return space.model_copy(update={"search": space.search.model_copy(update={"baseline": False})})


def known_before(space: SearchSpace, given: Mapping[str, Any], folder: Path) -> tuple[Knowledge, list[str]]:
    """Returns what earlier searches know of a new one in `folder`, and sentences on what is learnt from which.

    Args:
        given: the arguments of `search` that were given: `learn_from`, `from_scratch`.

    Raises:
        UserError: Both were given, or nothing can be learnt from a search that was named.
    """
    from tune_cropshield.search.earlier import learn
    from tune_cropshield.search.knowledge import Knowledge

    named = given.get("learn_from")
    if given.get("from_scratch"):
        if named is not None:
            raise UserError("--from-scratch learns from no search: leave it out, or --learn-from")
        return Knowledge(), []
    if named is not None:
        listed = [named] if isinstance(named, str | Path) else list(named)
        return learn(space, [], [path_of(one, "--learn-from") for one in listed])
    return learn(space, [RUNS, *([folder.parent] if folder.parent.resolve() != RUNS.resolve() else [])])
