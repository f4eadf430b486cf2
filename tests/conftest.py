"""Fixtures that several rooms need. Nothing here downloads, and nothing reads the user's cache."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.search.ray_runtime import ENVIRONMENT

# A shell that starts pytest in the background, or nohup, ignores these, and so would the commands that tests start.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), handler)

os.environ.update(ENVIRONMENT)  # before any test module imports Ray, which reads it then

REAL_LEAVES = (
    Path(__file__).parents[2] / "shared" / "data" / "leaves"
)  # beside a checkout where the photographs are at hand

# pytest --hypothesis-profile=thorough for the full numbers
settings.register_profile("fast", max_examples=100, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "thorough",
    max_examples=2500,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fast")


@pytest.fixture(scope="session")
def drawn_leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 classes of 30 drawn leaves, 40 px."""
    return draw_leaves(tmp_path_factory.mktemp("data") / "leaves", classes=4, per_class=30, image_size=40)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for stores, built once per test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for commands, so that they leave the user's cache alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def real_leaves() -> Path:
    """The real photographs; the test is skipped where they are not beside the checkout."""
    if not REAL_LEAVES.is_dir():
        pytest.skip(f"no photographs in {REAL_LEAVES}")
    return REAL_LEAVES


@pytest.fixture(autouse=True)
def threads_as_they_were() -> object:
    """A trial sets torch's threads; the next test starts with the old number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
