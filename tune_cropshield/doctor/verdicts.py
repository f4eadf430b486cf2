"""A claim beside what was found here: whether it holds, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tune_cropshield.doctor.claims import Claim, Figure, Figures, Key, Unit

# How far a figure may lie outside a rule's and still bear it out: a share of it, or points of percentage.
TOLERATED_SHARE = 0.1
NOT_MEASURED = "not measured with this network"
TOLERATED_POINTS: dict[Unit, float] = {"% less": 3.0, "% slower": 0.5}


@dataclass(frozen=True)
class Verdict:
    """A claim about `model`, what was found, and what follows."""

    claim: Claim
    model: str
    figure: Figure
    holds: bool | None  # None where nothing was measured, or the rule gives no figure
    text: str  # in plain words

    def as_dict(self) -> dict[str, Any]:
        """Returns one flat row, for JSON and CSV."""
        pair = f"{self.claim.pair[0]}x{self.claim.pair[1]}" if self.claim.pair else None
        row = asdict(self.claim) | {"model": self.model, "pair": pair, "places": list(self.claim.places)}
        return row | {
            "value": self.figure.value,
            "source": self.figure.source,
            "holds": self.holds,
            "verdict": self.text,
            "note": self.figure.note,
        }


def judge(claims: list[tuple[Claim, str]], figures: Figures, loader_gain: dict[str, float]) -> list[Verdict]:
    """Returns a verdict for each (claim, model).

    loader_gain: by model, what mixed precision still gives behind the stock loader.
    """
    return [_verdict(claim, model, _find(figures, claim, model), loader_gain.get(model)) for claim, model in claims]


def _find(figures: Figures, claim: Claim, model: str) -> Figure:
    exact = figures.get(Key(claim.quantity, model, claim.pair, claim.card))
    of_the_pair = figures.get(Key(claim.quantity, model, claim.pair))
    return exact or of_the_pair or figures.get(Key(claim.quantity, model)) or Figure(None, note=NOT_MEASURED)


def _verdict(claim: Claim, model: str, figure: Figure, loader_gain: float | None) -> Verdict:
    if figure.value is None:
        return Verdict(claim, model, figure, None, f"not known here: {figure.note}")
    value = written(figure.value, claim.unit)
    if claim.low is None or claim.high is None:
        runs = "it runs on this CPU: " if claim.quantity == "amp_on_cpu" else ""
        return Verdict(claim, model, figure, None, f"{runs}{value}")
    holds = _within(figure.value, claim.low, claim.high, claim.unit)
    text = f"holds: {value}" if holds else f"{value}, not {_range(claim)}{_remark(claim, figure.value)}"
    if claim.quantity == "amp_speed" and loader_gain is not None and loader_gain < 0.95 * max(figure.value, 1.0):
        text += f"; with PyTorch's loader, which cannot load images fast enough, {loader_gain:.1f} x"
    return Verdict(claim, model, figure, holds, text)


def _within(value: float, low: float, high: float, unit: Unit) -> bool:
    if unit in ("", "images"):
        return low <= value <= high
    slack = TOLERATED_POINTS.get(unit)
    if slack is not None:
        return low - slack <= value <= high + slack
    return low * (1 - TOLERATED_SHARE) <= value <= high * (1 + TOLERATED_SHARE)


def _range(claim: Claim) -> str:
    assert claim.low is not None and claim.high is not None
    return f"{claim.low:g}" if claim.low == claim.high else f"{claim.low:g} to {claim.high:g}"


def _remark(claim: Claim, value: float) -> str:
    """Returns how large the difference is, where a number of times says more than the two figures."""
    assert claim.low is not None and claim.high is not None
    if claim.unit not in ("GB", "MB", "images", "min/epoch") or not claim.low or not value:
        return ""
    return f" ({value / claim.high:.1f} times)" if value > claim.high else f" ({value / claim.low:.0%} of it)"


def written(value: float, unit: Unit) -> str:
    """Returns a figure with its unit, in as many digits as it deserves."""
    digits = {
        "x": f"{value:.2f}",
        "% less": f"{value:.0f}",
        "% slower": f"{value:.2f}",
        "GB": f"{value:.2f}",
        "MB": f"{value:.0f}",
    }
    digits |= {"images": f"{value:.0f}", "min/epoch": f"{value:.2f}", "M parameters": f"{value:.2f}", "": f"{value:g}"}
    space = "" if unit.startswith("%") or not unit else " "
    return f"{digits[unit]}{space}{unit}"
