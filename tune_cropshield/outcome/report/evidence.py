"""What is known of the winner beyond its own trial: its mistakes, and what confirm and the test split say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tune_cropshield.data.dataset import LeafData
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.conclusion import read_conclusion
from tune_cropshield.outcome.evaluation import read_record
from tune_cropshield.outcome.lead import Lead, LeadOverParts, lead_of_winner
from tune_cropshield.outcome.report.judgement import Judgement, judge, kept_predictions
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.shares import OnSamePhotographs, on_same_photographs
from tune_cropshield.outcome.trained import BEST
from tune_cropshield.search.endings import FINISHED
from tune_cropshield.training.bootstrap import interval
from tune_cropshield.training.run_folder import read_digest


@dataclass(frozen=True)
class Evidence:
    """What speaks for the winner.

    judgement: of the validation photographs, or a sentence that says why there is none. side_by_side: the winner
    (first) and the reference setting on the same photographs. lead: the winner's over the second-best trial. confirmed:
    confirm.json. tested: the record of `evaluate --split test` of the winner's weights. goal_interval: 95 % of the
    winner's goal, where that is another than the accuracy. None stands for what is not known.
    """

    judgement: Judgement | str
    side_by_side: OnSamePhotographs | None
    lead: Lead | LeadOverParts | None
    confirmed: dict[str, Any] | None
    tested: dict[str, Any] | None
    goal_interval: tuple[float, float] | None = None

    @property
    def num_judged(self) -> int | None:
        """How many validation photographs there are."""
        return len(self.judgement.rows) if isinstance(self.judgement, Judgement) else None


def read_evidence(record: SearchRecord, data: LeafData | str) -> Evidence:
    """Returns what is known. data: the photographs, or why they cannot be opened."""
    photographs = data if isinstance(data, LeafData) else None
    winner, reference = record.winner, record.reference
    if winner is None:
        return Evidence("There is no winner yet.", None, None, None, None)
    on_cpu = bool(record.starts) and record.starts[-1].get("device") == "cpu"
    judgement: Judgement | str
    try:
        judgement = judge(record.result_folder or winner.folder, photographs, "cpu" if on_cpu else "auto")
    except UserError as error:
        why = data if isinstance(data, str) else str(error)
        judgement = f"The winner's mistakes cannot be shown: {why}."
    except RuntimeError as error:  # a GPU that is busy or full
        judgement = f"The winner's mistakes cannot be shown: {str(error).splitlines()[0]}."
    sides = [kept_predictions(trial.folder, photographs) or [] for trial in (winner, reference) if trial is not None]
    network = record.result_folder or winner.folder
    digest = read_digest(network)
    records = [read_record(folder, "test") for folder in (record.folder / BEST, network)]
    tested = next((found for found in records if found and digest and found["weights_sha256"] == digest), None)
    lead = lead_of_winner(record.study, record.folder)
    ran_to_its_end = reference is not None and reference.outcome == FINISHED
    side_by_side = on_same_photographs(*sides) if ran_to_its_end else None
    goal = record.goal
    ends = None if goal.is_accuracy else interval(goal.name, sides[0])
    return Evidence(judgement, side_by_side, lead, read_conclusion(record.folder), tested, ends)
