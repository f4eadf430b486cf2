"""Whether a search that is continued is still the one that was begun: its photographs, its settings, its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from tune_cropshield.config.differences import differences
from tune_cropshield.config.own_files import file_digest
from tune_cropshield.config.registry import is_own, is_same_source
from tune_cropshield.config.settings import NOT_COMPARED, DataConfig, TrialConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.data.split_file import read_split, stored_now, what_changed
from tune_cropshield.data.store import Store
from tune_cropshield.errors import UserError
from tune_cropshield.search.journal import JOURNAL, num_started
from tune_cropshield.search.trial_settings import OWN_CODE, comparable_settings, own_names, settings_mark

FORMAT = "4"  # of trials' settings, checkpoints and metrics: raised when an older search can no longer be continued
SPELLED = "spelled_settings"  # user attribute of the study
NEW_ONE = "start a new search with another --out"
# Of [search], in the order in which `comparable_settings` lists them, those of trials in parts at the end.
OF_SEARCH = ("epochs", "grace_epochs", "reduction_factor", "pairs", "pruning", "folds", "replicates")


def check_journal(folder: Path) -> None:
    """Raises UserError where a search's folder holds trials and no journal: they would be trained over."""
    journal, trials = folder / JOURNAL, sorted(path.name for path in folder.glob("t[0-9]*") if path.is_dir())
    if trials and not (journal.is_file() and journal.stat().st_size):
        raise UserError(
            f"{folder} holds trials ({trials[0]} to {trials[-1]}), but what is known of them ({JOURNAL}) is missing: "
            f"put it back, or {NEW_ONE}"
        )


def check_same(study: optuna.Study, folder: Path, space: SearchSpace, store: Store) -> None:
    """Writes down what a search must have in common with its resumption; raises UserError where an old one's differs.

    Args:
        study: the search's, new or with trials.
        store: its photographs, decoded.
    """
    check_trials(study, folder)
    marks = {"format": FORMAT, "data": store.fingerprint[:16], "settings": settings_mark(space)}
    contents = {weights: file_digest(Path(weights)) for weights in own_weights(space)}
    if any(contents.values()):
        marks["weights"] = " ".join(content for content in contents.values() if content)
    for name, mark in marks.items():
        before = study.user_attrs.get(name)
        if before is None:
            study.set_user_attr(name, mark)
        elif before != mark and (why := _why(name, study, folder, space, store)):
            raise UserError(f"{why}, or {NEW_ONE}")
    if SPELLED not in study.user_attrs:
        study.set_user_attr(SPELLED, json.dumps(comparable_settings(space)))


def check_trials(study: optuna.Study, folder: Path) -> None:
    """Raises UserError where there are folders of trials that the journal does not know: they would be trained over."""
    known = num_started(study)
    numbers = (path.name[1:] for path in folder.glob("t[0-9]*") if path.is_dir())
    unknown = sorted(int(number) for number in numbers if number.isdecimal() and int(number) >= known)
    if unknown:
        raise UserError(
            f"{folder / JOURNAL} knows only {known} of the trials, t{unknown[0]:03d} is there too: put this search's "
            f"whole journal back, or {NEW_ONE}"
        )


def own_weights(space: SearchSpace) -> list[str]:
    """Returns the files of weights that trials of `space` begin with."""
    searched = [value for domain in space.domains().get("pretrained", ()) for value in domain.ends]
    return list(dict.fromkeys(file for file in (space.trial_config().pretrained, *searched) if isinstance(file, str)))


def _why(name: str, study: optuna.Study, folder: Path, space: SearchSpace, store: Store) -> str:
    """Returns a sentence on what differs, and how it could be the same again; "" where only the spelling does."""
    if name == "format":
        return "another version of tune_cropshield, whose trials differ, began this search: continue it with that one"
    if name == "weights":
        return f"since this search was begun, {' or '.join(own_weights(space))} has changed: put it back as it was"
    if name == "data":
        return f"{store.root}: {_photographs_differ(folder, store)}"
    if (spelled := spelled_settings(study)) is not None:
        differ = settings_differ(spelled, space)
        return f"this search was begun with other settings: {'; '.join(differ)}. Set them back" if differ else ""
    searched = [str(value) for name in OWN_CODE for domain in space.domains().get(name, ()) for value in domain.ends]
    own = [value for value in (*own_names(space).values(), *searched) if is_own(value)]
    also = f" ({', '.join(own)} may have changed)" if own else ""
    told = "this search was begun with other settings, or by a version in which they meant something else"
    return f"{told}{also}: set them back"


def spelled_settings(study: optuna.Study) -> dict[str, Any] | None:
    """Returns the `comparable_settings` that a search was begun with; None where an earlier version kept none."""
    spelled = study.user_attrs.get(SPELLED)
    return json.loads(spelled) if spelled is not None else None


def settings_differ(before: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """Returns what differs between settings of `comparable_settings` and a space's, in a few words each."""
    now = json.loads(json.dumps(comparable_settings(space)))
    return [*own_files_differ(before, space), *differences(_by_name(before), _by_name(now))]


def own_files_differ(before: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """Returns which files of a user's own hold something else than they did in settings of `comparable_settings`."""
    now = comparable_settings(space)
    changed = [  # the lists differ in length where one search has an own metric and the other has not
        name
        for name, old, new in zip(own_names(space).values(), before["code"], now["code"], strict=False)
        if old != new and not is_same_source(name, old)
    ]
    then, searched = before.get("searched_code", {}), now.get("searched_code", {})
    changed += [name for name, digest in searched.items() if name in then and not is_same_source(name, then[name])]
    return [f"{name} has changed" for name in changed]


def _by_name(spelled: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `comparable_settings` by name. What an earlier version did not know has its default."""
    return {
        **DataConfig().model_dump(mode="json", exclude={*NOT_COMPARED}),
        **spelled["data"],
        **TrialConfig().model_dump(mode="json"),
        **spelled["trial"],
        **spelled["space"],
        **spelled.get("when", {}),
        **dict(zip(OF_SEARCH, [*spelled["search"], *spelled.get("parts", [1, 1])], strict=True)),
    }


def _photographs_differ(folder: Path, store: Store) -> str:
    rows = read_split(folder)
    if rows is None:
        return "the photographs are not those that this search was begun on. Put them back"
    told = what_changed(rows, stored_now(store))
    if not told:
        return (
            "the photographs are the same, but this version of tune_cropshield or Pillow reads them differently: "
            "continue with the versions that this search was begun with"
        )
    return f"since this search was begun, {told}. Put them back as they were"
