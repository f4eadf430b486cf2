"""TensorBoard's HParams tab of a search: ranges, every trial's parameters and how it ended. Needs no TensorFlow.

The tab is built from three kinds of records: one of the search (which parameters and metrics there are), one when a
trial starts and one when it ends; TensorBoard keeps the first of each that it meets. They lie in files of their own
whose names sort before and after the scalars that the trial's process has written, because TensorBoard reads a folder's
files in the order of their names and never goes back.

A trial's records and scalars lie in a sub-folder of its folder whose name says its setting, as t003/lr3e-4_norm1:
TensorBoard calls runs by their folders. A row of the table is called by the run, so that trials of equal number in
several searches, shown together, are rows of their own.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.domain import Domain, covering
from tune_cropshield.config.goals import Goal
from tune_cropshield.config.searchable import SEARCHABLE
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search.endings import DIVERGED, FAILED, OUT_OF_MEMORY, PRUNED, STOPPED_BY_HAND
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR
from tune_cropshield.training.board import EVENT_FILES, events_folder, next_file, tag_of

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.plugins.hparams.summary_v2 import Metric

START = "events.out.tfevents.0000000000.hparams"  # before the scalars' files, which carry the time
STOPPED, END = "stopped.hparams", "end.hparams"  # the last part of names that carry the time
# TensorBoard knows success and failure only: 1 where the pruning rule ended the trial, 2 where somebody did, else 0.
PRUNED_METRIC = "search/pruned"
FAILURES = (DIVERGED, OUT_OF_MEMORY, FAILED)
# Worth a column beside what can be searched.
CONSTANTS = ("model", "image_size", "epochs", "precision", "pretrained", "freeze_backbone", "seed")
METRICS = {  # of a search for val_acc: tag -> what TensorBoard shows as its description
    tag_of("val_acc"): "validation accuracy of the last epoch",
    tag_of("best_val_acc"): "highest validation accuracy of any epoch so far",
    tag_of("best_epoch"): "the epoch with the highest validation accuracy",
    tag_of("best_val_loss"): "validation loss of the best epoch",
    tag_of("best_val_macro_f1"): "validation macro F1 of the best epoch",
    tag_of("best_val_balanced_acc"): "validation balanced accuracy of the best epoch",
    tag_of("best_val_auc"): "validation area under the ROC curve of the best epoch",
    tag_of("best_train_loss"): "training loss of the best epoch",
    tag_of("clip_rate"): "share of the last epoch's updates whose gradient was clipped",
    tag_of("grad_norm_p95"): "95th percentile of the last epoch's gradient norms, before clipping",
    tag_of("images_per_s"): "training images per second in the last epoch",
    tag_of("peak_vram_mib"): "largest amount of GPU memory reserved in the last epoch, in MiB; 0 on a CPU",
    PRUNED_METRIC: "1 if the trial was stopped early by the pruning rule, 2 if by hand, else 0",
}
# Names of parameters in the names of folders, where they are shorter.
SHORT = {
    "max_norm": "norm",
    "weight_decay": "wd",
    "effective_batch": "batch",
    "label_smoothing": "smooth",
    "unfreeze_epochs": "frozen",
    "backbone_lr_factor": "backbone",
    "layer_decay": "decay",
    "class_weights": "weights",
    "effective_beta": "beta",
    "focal_gamma": "gamma",
    "tempered_t1": "t1",
    "tempered_t2": "t2",
    PAIR: "",
    "image_size": "px",
}
LONGEST_NAME = 48  # paths are short on Windows


class HParams:
    """Writes the records of a search into its folder.

    A disk that cannot be written to never ends a search: its trials will notice and say so.
    """

    def __init__(self, search_dir: Path, space: SearchSpace, plan: Plan) -> None:
        self._search_dir = search_dir
        self._space, self._domains, self._metrics = space, _domains(space, plan), _metrics(space.goal)
        searched = [name for name in space.domains() if name != EFFECTIVE_BATCH or space.search.pairs != "all"]
        # The learning rate tells trials apart most: behind words of networks and optimizers there is no room for it.
        self._searched = sorted(searched, key=lambda name: name != "lr")
        if space.search.pairs == "all":
            self._searched.append(PAIR)

    def search_started(self) -> None:
        """Writes which parameters and metrics the search has."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG
        from tensorboard.plugins.hparams.summary_v2 import Metric

        metrics = [
            Metric(tag, description=text, dataset_type=_dataset_type(Metric, tag)).as_proto()
            for tag, text in self._metrics.items()
        ]
        hparams = [_hparam_info(name, values) for name, values in self._domains.items()]
        experiment = api_pb2.Experiment(hparam_infos=hparams, metric_infos=metrics, time_created_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
        _write(self._search_dir / START, _record(EXPERIMENT_TAG, data))

    def trial_started(self, number: int, trial: Mapping[str, Any]) -> None:
        """Writes the parameters of a trial, given all its settings by name; once, however often it is continued.

        One that had been stopped is not pruned any more.
        """
        from tensorboard.plugins.hparams import plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

        run_dir = trial_folder(self._search_dir, number)
        folder = events_folder(run_dir)
        if (folder / START).exists():
            if next(folder.glob(f"{EVENT_FILES}.{STOPPED}"), None) is not None:
                _write(next_file(folder, "continued.hparams"), _pruned(0))
            return
        settings = {**trial, PAIR: f"{trial['micro_batch']}x{trial['accumulation']}"}
        # Without a name for its group of sessions, which would put trials of several searches together.
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        absent = self._space.domains().keys() - self._space.domains_of(trial).keys()
        for name, domain in self._domains.items():
            if name in absent:  # the table's cell stays empty
                continue
            value = _value(settings[name], as_text=_is_text(domain))
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, str):
                start.hparams[name].string_value = value
            else:
                start.hparams[name].number_value = value
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        name = setting_name({name: settings[name] for name in self._searched if name not in absent})
        _write(run_dir / name / START, _record(SESSION_START_INFO_TAG, data))

    def trial_stopped(self, number: int) -> None:
        """Writes that a pruning step has stopped a trial. It has no end yet: the search may go on with it."""
        folder = events_folder(trial_folder(self._search_dir, number))
        _write(next_file(folder, STOPPED), _pruned(1))

    def trial_ended(self, number: int, outcome: str, reason: str | None = None) -> None:
        """Writes how a trial ended: success for finished and pruned ones, failure for the rest; once.

        The metric `pruned` tells the first two apart, and what somebody stopped by hand.
        """
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

        folder = events_folder(trial_folder(self._search_dir, number))
        if next(folder.glob(f"{EVENT_FILES}.{END}"), None) is not None:
            return
        status = api_pb2.STATUS_FAILURE if outcome in FAILURES else api_pb2.STATUS_SUCCESS
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        summary = _pruned(0 if outcome != PRUNED else 2 if reason == STOPPED_BY_HAND else 1)
        summary.MergeFrom(_record(SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)))
        _write(next_file(folder, END), summary)


def setting_name(parameters: Mapping[str, Any]) -> str:
    """Returns a setting as the name of a folder, in at most 48 characters: "lr3e-4_norm1_batch64".

    Parameters that find no room are left out, the last ones first.
    """
    words = [f"{SHORT.get(name, name)}{_short(value)}" for name, value in parameters.items()]
    text = re.sub(r"[^A-Za-z0-9_.+-]", "-", words[0] if words else "setting")[:LONGEST_NAME]
    for word in words[1:]:
        if len(f"{text}_{word}") > LONGEST_NAME:
            break
        text += "_" + re.sub(r"[^A-Za-z0-9_.+-]", "-", word)
    return text.rstrip(".")


def _short(value: Any) -> str:
    """Returns a value in few characters: 0.0003 is 3e-4, a user's own code its name."""
    if isinstance(value, float):
        text = f"{value:.3g}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3e}"
        digits, _, power = text.partition("e")
        return f"{float(digits):g}e{int(power)}" if power else text
    return str(value).rpartition(":")[2]


def _domains(space: SearchSpace, plan: Plan) -> dict[str, Domain | tuple[Any, ...]]:
    """Returns what each column can hold: a range, or all values.

    Searched parameters come first, then the pair's parts, then constants.
    """
    domains: dict[str, Domain | tuple[Any, ...]] = {
        name: covering(known) for name, known in space.domains().items() if name != EFFECTIVE_BATCH
    }
    plans = [own for _, own in plan.families] or [plan]
    pairs = list(
        dict.fromkeys(
            pair
            for own in plans
            for batch in own.effective_batches
            for pair in (own.pairs[batch] if space.search.pairs == "all" else own.pairs[batch][:1])
        )
    )
    if space.search.pairs == "all":
        domains[PAIR] = tuple(str(pair) for pair in pairs)
    domains[EFFECTIVE_BATCH] = tuple(sorted({pair.effective_batch for pair in pairs}))
    domains["micro_batch"] = tuple(sorted({pair.micro_batch for pair in pairs}))
    domains["accumulation"] = tuple(sorted({pair.accumulation for pair in pairs}))
    settings = {**space.data.model_dump(), **space.trial_config().model_dump()}
    constants = dict.fromkeys([*CONSTANTS, *SEARCHABLE])  # another search, shown beside this one, may search any
    return {**{name: (settings[name],) for name in constants if name not in domains}, **domains}


def _metrics(goal: Goal) -> dict[str, str]:
    """Returns tag -> description of each metric that has a column; those of the search's goal come first."""
    if goal.is_accuracy:
        return METRICS
    own = {
        tag_of(goal.name): f"{goal.name} of the last epoch",
        tag_of(f"best_{goal.name}"): f"best {goal.name} of any epoch so far",
        tag_of("best_epoch"): f"the epoch with the best {goal.name}",
        tag_of("best_val_acc"): "validation accuracy of the best epoch",
    }
    return own | {tag: text for tag, text in METRICS.items() if tag not in own}


def _is_text(domain: Domain | tuple[Any, ...]) -> bool:
    """Tells whether a column holds text: also where numbers and words are mixed, as in a bound that may be "none"."""
    values = _discrete(domain)
    return values is not None and not (
        all(isinstance(value, bool) for value in values) or all(_is_number(value) for value in values)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _discrete(domain: Domain | tuple[Any, ...]) -> tuple[Any, ...] | None:
    return domain.choice if isinstance(domain, Domain) else domain


def _value(value: Any, as_text: bool) -> Any:
    if not as_text:
        return value
    return "none" if value is None else str(value)


def _hparam_info(name: str, domain: Domain | tuple[Any, ...]) -> HParamInfo:
    """Returns what TensorBoard is told of a column.

    Those that differ between trials come first there, and only the first few are shown unasked.
    """
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo
    from tensorboard.plugins.hparams.summary_v2 import Discrete, RealInterval

    values = _discrete(domain)
    info = HParamInfo(name=name, differs=values is None or len(values) > 1)
    if values is None:
        assert isinstance(domain, Domain)
        low, high = domain.range
        RealInterval(float(low), float(high)).update_hparam_info(info)
    else:
        values = tuple(_value(value, _is_text(domain)) for value in values)
        Discrete([float(value) for value in values] if _is_number(values[0]) else list(values)).update_hparam_info(info)
    return info


def _dataset_type(metric: type[Metric], tag: str) -> int | None:
    if "val_" in tag:
        return int(metric.VALIDATION)
    return int(metric.TRAINING) if "train_" in tag else None


def _record(tag: str, data: HParamsPluginData) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    return Summary(value=[Summary.Value(tag=tag, metadata=create_summary_metadata(data), tensor=NULL_TENSOR)])


def _pruned(how: int) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=PRUNED_METRIC, simple_value=float(how))])


def _write(path: Path, summary: Summary) -> None:
    """Writes an event file that holds `summary`, at once."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    records.write(Event(wall_time=time.time(), summary=summary).SerializeToString())
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
