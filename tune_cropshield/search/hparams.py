"""TensorBoard's HParams tab of a search: ranges, every trial's parameters and how it ended. Needs no TensorFlow.

The tab is built from three kinds of records: one of the search (which parameters and metrics there are), one when a
trial starts and one when it ends; TensorBoard keeps the first of each that it meets. They lie in files of their own
whose names sort before and after the scalars that the trial's process writes, because TensorBoard reads a folder's
files in the order of their names and never goes back.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.domain import Domain
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search.endings import DIVERGED, FAILED, OUT_OF_MEMORY, PRUNED
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.plugins.hparams.summary_v2 import Metric

START = "events.out.tfevents.0000000000.hparams"  # before the scalars' files, which carry the time
END = "events.out.tfevents.9999999999.hparams"
# TensorBoard knows success and failure only: 1 where the pruning rule ended the trial, else 0.
PRUNED_METRIC = "pruned"
FAILURES = (DIVERGED, OUT_OF_MEMORY, FAILED)
# Always worth a column, though a space may neither search nor set them.
CONSTANTS = ("model", "image_size", "optimizer", "schedule", "epochs", "precision", "augment", "seed")
METRICS = {  # tag -> what TensorBoard shows as its description
    "best_val_acc": "highest accuracy on the validation split so far",
    "best_epoch": "its epoch",
    "best_val_loss": "validation loss of that epoch",
    "best_val_macro_f1": "macro F1 of that epoch",
    "best_train_loss": "training loss of that epoch",
    "val_acc": "accuracy of the last epoch",
    "clip_rate": "share of the last epoch's updates that clipping changed",
    "grad_norm_p95": "95 % quantile of the last epoch's gradient norms, before clipping",
    "images_per_s": "training images per second in the last epoch",
    "peak_vram_mib": "largest reserved GPU memory of the last epoch; 0 on a CPU",
    PRUNED_METRIC: "1: ended early by the pruning rule",
}


class HParams:
    """Writes the records of a search into its folder.

    A disk that cannot be written to never ends a search: its trials will notice and say so.
    """

    def __init__(self, search_dir: Path, space: SearchSpace, plan: Plan) -> None:
        self._search_dir = search_dir
        self._domains = _domains(space, plan)

    def search_started(self) -> None:
        """Writes which parameters and metrics the search has."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG
        from tensorboard.plugins.hparams.summary_v2 import Metric

        metrics = [
            Metric(tag, description=text, dataset_type=_dataset_type(Metric, tag)).as_proto()
            for tag, text in METRICS.items()
        ]
        hparams = [_hparam_info(name, values) for name, values in self._domains.items()]
        experiment = api_pb2.Experiment(hparam_infos=hparams, metric_infos=metrics, time_created_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
        _write(self._search_dir / START, _record(EXPERIMENT_TAG, data))

    def trial_started(self, number: int, trial: Mapping[str, Any]) -> None:
        """Writes the parameters of a trial, given all its settings by name; once, however often it is gone on with."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        path = trial_folder(self._search_dir, number) / START
        if path.exists():
            return
        settings = {**trial, PAIR: f"{trial['micro_batch']}x{trial['accumulation']}"}
        values = {name: _value(settings[name], as_text=_is_text(domain)) for name, domain in self._domains.items()}
        _write(path, hparams_pb(values, trial_id=path.parent.name, start_time_secs=time.time()))

    def trial_ended(self, number: int, outcome: str) -> None:
        """Writes how a trial ended: success for finished and pruned ones, failure for the rest.

        The metric `pruned` tells the first two apart.
        """
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

        status = api_pb2.STATUS_FAILURE if outcome in FAILURES else api_pb2.STATUS_SUCCESS
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        summary = _record(SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))
        summary.value.add(tag=PRUNED_METRIC, simple_value=float(outcome == PRUNED))
        _write(trial_folder(self._search_dir, number) / END, summary)


def _domains(space: SearchSpace, plan: Plan) -> dict[str, Domain | tuple[Any, ...]]:
    """Returns what each column can hold: a range, or all values.

    Searched parameters come first, then the pair's parts, then constants.
    """
    domains: dict[str, Domain | tuple[Any, ...]] = {
        name: domain for name, domain in space.space.items() if name != EFFECTIVE_BATCH
    }
    pairs = [
        pair
        for batch in plan.effective_batches
        for pair in (plan.pairs[batch] if space.search.pairs == "all" else plan.pairs[batch][:1])
    ]
    if space.search.pairs == "all":
        domains[PAIR] = tuple(str(pair) for pair in pairs)
    domains[EFFECTIVE_BATCH] = tuple(sorted({pair.effective_batch for pair in pairs}))
    domains["micro_batch"] = tuple(sorted({pair.micro_batch for pair in pairs}))
    domains["accumulation"] = tuple(sorted({pair.accumulation for pair in pairs}))
    trial = space.trial_config()
    constants = dict.fromkeys([*CONSTANTS, *(name for name in TrialConfig.model_fields if name in space.trial)])
    return {**{name: (getattr(trial, name),) for name in constants if name not in domains}, **domains}


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


def _write(path: Path, summary: Summary) -> None:
    """Writes an event file that holds `summary`, at once."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    records.write(Event(wall_time=time.time(), summary=summary).SerializeToString())
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
