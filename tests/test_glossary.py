"""The glossary names modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_term_of_the_glossary_names_a_module_that_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines() if line.startswith("| **")]
    modules = [re.findall(r"`(\S+\.py)`", row.split("|")[3]) for row in rows]

    assert len(rows) >= 12
    assert all(modules)
    assert [name for names in modules for name in names if not (ROOT / "tune_cropshield" / name).is_file()] == []
