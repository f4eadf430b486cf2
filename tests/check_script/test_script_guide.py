"""The guide's own code blocks: each of its mistakes is found on its line of the guide, and nothing else in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cropshield.check_script.checks import check_source
from tune_cropshield.check_script.source import parse_source
from tune_cropshield.errors import UserError

GUIDE = Path(__file__).parents[3] / "shared" / "guide"

# Document -> (line of the guide, rule), read through by hand, block by block. Blocks that are right, or say only what
# another has said, add none.
EXPECTED = {
    "gradient_clipping_notes.md": [],
    "training_performance_guide.md": [
        (71, "deprecated-cuda-amp"),
        (106, "batch-norm-in-autocast"),  # under the comment "these operations run in FP32"
        (131, "fp16-underflow"),
        (131, "loss-not-scaled"),  # the block's "without scaling"; line 134 is its "with scaling"
        (239, "last-window-dropped"),
        (251, "loss-not-divided"),  # "Wrong"; line 254 is its "Correct"
        (285, "zero-grad-in-window"),  # "Wrong"; lines 278 to 281 are its "Correct"
        (298, "floored-accumulation"),
        (338, "memory-formula"),
        (341, "floored-accumulation"),
        (462, "deprecated-cuda-amp"),
        (567, "last-window-dropped"),
        (595, "item-in-loop"),
        (600, "item-in-loop"),
        (610, "mean-of-batch-means"),
        (621, "plateau-without-metric"),  # the example below it passes scheduler_type='plateau'
        (811, "micro-batch-below-16"),
        (911, "grad-may-be-none"),
        (938, "zero-grad-in-window"),  # "Wrong"; lines 931 to 934 are its "Correct"
        (957, "amp-on-cpu"),
    ],
}
NO_PYTHON = [("training_performance_guide.md", 400)]  # a formula in words: sum(grad^2 for all parameters)


def blocks(document: Path) -> list[tuple[int, str]]:
    """Returns (line of the guide before its first, code) of each Python block."""
    lines = document.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.strip() == "```python"]
    ends = [next(number for number in range(start, len(lines)) if lines[number].strip() == "```") for start in starts]
    return [(start, "\n".join(lines[start:end])) for start, end in zip(starts, ends, strict=True)]


@pytest.fixture(scope="module")
def guide() -> Path:
    if not GUIDE.is_dir():
        pytest.skip(f"the guide is not at hand ({GUIDE})")
    return GUIDE


@pytest.mark.parametrize("name", EXPECTED)
def test_the_guides_mistakes_are_found_and_its_right_forms_are_not(guide: Path, name: str) -> None:
    told, refused = [], []
    for start, code in blocks(guide / name):
        try:
            told += [
                (start + finding.line, finding.rule) for finding in check_source(parse_source(code, name)).findings
            ]
        except UserError as error:
            refused.append((name, start + int(str(error).split(":")[1])))

    assert told == EXPECTED[name]
    assert refused == [place for place in NO_PYTHON if place[0] == name]


def test_no_block_is_overlooked(guide: Path) -> None:
    assert {name: len(blocks(guide / name)) for name in EXPECTED} == {
        "gradient_clipping_notes.md": 3,
        "training_performance_guide.md": 31,
    }
