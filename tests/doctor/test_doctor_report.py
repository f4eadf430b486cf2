"""The examination as a person reads it, and as a program does."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from tune_cropshield.data.left_out import LeftOut
from tune_cropshield.doctor.claims import CLAIMS, Figure, Key
from tune_cropshield.doctor.examination import Examination
from tune_cropshield.doctor.loading import Loading
from tune_cropshield.doctor.machine import Machine
from tune_cropshield.doctor.photographs import Photographs
from tune_cropshield.doctor.report import show
from tune_cropshield.doctor.speeds import Speeds
from tune_cropshield.doctor.verdicts import judge

CNN = "cropshield_cnn"
CLAIMED = [(claim, CNN) for claim in CLAIMS if claim.key in ("amp-speed", "vram-4060-cnn-32", "clip-saves-epochs")]
FOUND = Examination(
    device="cuda",
    machine=Machine(
        "NVIDIA H200", "570.1", 143771.0, 143000.4, 1, 16, "Linux", "3.12.3", {"torch": "2.11.0"}, "/cache", 50.0
    ),
    photographs=Photographs(
        folder="leaves",
        classes={"rust": 40, "scab": 10},
        files=50,
        looked_at=32,
        broken=(("rust/4.jpg", "truncated"),),
        smallest=(40, 30),
        median=(256, 256),
        largest=(4000, 3000),
        long=(),
        copies=(("rust/1.jpg", "scab/copy.jpg"),),
        files_compared=True,
        across_classes=1,
        near_copies=(("rust/1.jpg", "rust/1_90deg.jpg"),),
        left_out=(LeftOut("rust/9.heic", "format", "HEIC is not read", "rust"),),
        validation={"rust": 4, "scab": 1},
        given_split=False,
    ),
    drawn=False,
    loading=Loading(50.0, 9000.0, 300.0, 224, 256),
    speeds={CNN: Speeds({}, {"fp32": 1200.0, "amp": 1600.0}, "32 x 1 at 224 px")},
    verdicts=judge(
        CLAIMED,
        {
            Key("amp_speed", CNN): Figure(1.33),
            Key("vram", CNN, (32, 1), "rtx4060-laptop"): Figure(3.5, note="3084 MiB reserved"),
        },
        {CNN: 1.0},
    ),
    seconds=95.0,
)


def printed() -> str:
    out = io.StringIO()
    show(FOUND, Console(file=out, width=200, highlight=False))
    return out.getvalue()


def test_machine_and_photographs_are_told_with_what_is_wrong_with_them() -> None:
    text = printed()

    assert "NVIDIA H200, driver 570.1, 143000 of 143771 MiB free" in text
    assert "16 cores usable, Linux" in text
    assert "2 of 50 files; largest : smallest = 40 rust : 10 scab, 4.0 times as many" in text
    assert "always answering rust has accuracy 0.800 and macro F1 0.444" in text
    assert (
        "5 validation photographs: one is 20.0 points of val_acc, and one of the smallest class is 100 points of its "
        "recall; some classes have fewer than 5: scab 1, rust 4"
    ) in text
    assert (
        "rescaled or compressed ones, or copies by name: 1 among the 32 decoded: rust/1.jpg ~ rust/1_90deg.jpg" in text
    )
    assert "left out: 1 .heic in rust (HEIC is not read)" in text
    assert "1 (32 of 50, chosen at random, were checked): rust/4.jpg (truncated)" in text
    assert "groups of identical files: 1, 1 of them in more than one class: rust/1.jpg = scab/copy.jpg" in text
    assert 'class_weights = "balanced"' in text
    assert "median 256 x 256 px, from 40 x 30 to 4000 x 3000" in text


def test_one_core_is_one_core() -> None:
    out = io.StringIO()
    show(
        replace(FOUND, machine=replace(FOUND.machine, cores=1), verdicts=FOUND.verdicts[:1]),
        Console(file=out, width=200, highlight=False),
    )
    assert "1 core usable, Linux" in out.getvalue()
    assert "1 rule of thumb could be checked on this GPU: 0 hold." in out.getvalue()


def test_a_starving_gpu_is_told_about() -> None:
    assert "loading images: 8 processes of PyTorch's loader give 400, the training step could take 1600" in printed()
    assert "1.33 x, not 2; with PyTorch's loader, which cannot load images fast enough, 1.0 x" in printed()


def test_claims_are_counted_and_those_without_a_figure_left_to_the_json() -> None:
    text = printed()

    assert "3.50 GB, not 6 to 7 (58% of it) (measured: 3084 MiB reserved)" in text
    assert "2 rules of thumb could be checked on this GPU: 0 hold. Took 95 s." in text
    assert "clip-saves-epochs" not in text
    assert [claim["holds"] for claim in FOUND.as_dict()["claims"]] == [False, None, False]


def test_classes_of_one_size_are_not_compared_with_themselves() -> None:
    out = io.StringIO()
    found = replace(FOUND, photographs=replace(FOUND.photographs, classes={"healthy": 14, "rust": 14}, files=28))
    show(found, Console(file=out, width=200, highlight=False))

    assert "2 of 28 files; 14 in each" in out.getvalue()
    assert "times as many in" not in out.getvalue()
    assert "class_weights" not in out.getvalue()
