"""Claims beside figures: what holds, what does not, and in which words."""

from __future__ import annotations

import pytest

from tune_cropshield.doctor.claims import CLAIMS, Figure, Key, claims_about
from tune_cropshield.doctor.loading import gain_behind
from tune_cropshield.doctor.verdicts import judge

BY_KEY = {claim.key: claim for claim in CLAIMS}


def verdict(key: str, value: float | None, loader_gain: dict[str, float] | None = None) -> tuple[bool | None, str]:
    claim = BY_KEY[key]
    model = claim.model or "efficientnet_b0"
    (judged,) = judge(
        [(claim, model)],
        {Key(claim.quantity, model, claim.pair, claim.card): Figure(value, note="why")},
        loader_gain or {},
    )
    return judged.holds, judged.text


@pytest.mark.parametrize(
    ("key", "value", "holds", "text"),
    [
        ("amp-speed", 1.95, True, "holds: 1.95 x"),
        ("amp-speed", 1.31, False, "1.31 x, not 2"),
        ("amp-memory", 44.2, True, "holds: 44% less"),
        ("amp-memory", 30.0, False, "30% less, not 40 to 50"),
        ("clip-1", 0.62, True, "holds: 0.62% slower"),
        ("clip-1", 4.0, False, "4.00% slower, not 1"),
        ("vram-4060-cnn-32", 3.0, False, "3.00 GB, not 6 to 7 (50% of it)"),
        ("vram-3050-b0-32", 3.1, True, "holds: 3.10 GB"),
        ("formula-prints", 2816, False, "2816 images, not 16 (176.0 times)"),
        ("table-4060-b0-32", 32, False, "32 images, not 16 (2.0 times)"),
        ("fp16-underflow", 1.1920928955078125e-07, False, "1.19209e-07, not 0"),
        ("amp-on-cpu", 0.3, None, "it runs on this CPU: 0.30 x"),
        ("clip-saves-epochs", None, None, "not known here: why"),
    ],
)
def test_a_verdict_says_what_was_found_beside_what_the_rule_says(
    key: str, value: float | None, holds: bool | None, text: str
) -> None:
    assert verdict(key, value) == (holds, text)


def test_a_gain_that_the_loader_swallows_is_told() -> None:
    told = verdict("amp-speed", 1.95, {"efficientnet_b0": 1.0})

    assert told == (True, "holds: 1.95 x; with PyTorch's loader, which cannot load images fast enough, 1.0 x")


def test_behind_a_slow_loader_a_faster_step_gives_nothing() -> None:
    assert gain_behind(300, 600, 1200) == 1.0
    assert gain_behind(900, 600, 1200) == 1.5
    assert gain_behind(5000, 600, 1200) == 2.0


def test_every_claim_has_a_key_of_its_own_and_a_range() -> None:
    assert len(BY_KEY) == len(CLAIMS) == 38
    assert all(
        (claim.low is None) == (claim.high is None) and (claim.low is None or claim.low <= claim.high)
        for claim in CLAIMS
    )


def test_a_rule_about_any_network_is_judged_for_each() -> None:
    keys = [(claim.key, model) for claim, model in claims_about(("cropshield_cnn", "efficientnet_b0"))]

    assert ("amp-speed", "cropshield_cnn") in keys and ("amp-speed", "efficientnet_b0") in keys
    assert ("vram-4060-b0-32", "efficientnet_b0") in keys and ("vram-4060-b0-32", "cropshield_cnn") not in keys
