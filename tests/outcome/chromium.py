"""Chromium, headless, and what happens in it while a page is open."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from machine_changes import skip_unless_allowed
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_S = 240


def find_chromium() -> str:
    """Returns the path of a Chromium.

    Where it is missing, apt-get installs it if the environment (see machine_changes.py) allows it; otherwise the test
    is skipped, with the reason.
    """
    if (found := _installed()) is not None:
        return found
    skip_unless_allowed("install Chromium, which is missing here")
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("no Chromium here, and only root on Debian may install it: apt-get install chromium")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
    ):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"no Chromium here, and {' '.join(command)} took more than {INSTALL_S} s")
        if done.returncode:
            pytest.skip(f"no Chromium here, and {' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    if (found := _installed()) is None:
        pytest.skip("no Chromium here, though apt-get installed it")
    return found


def _installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


@dataclass
class Watched:
    """An open page. requests: every address it asked for, its own first; complaints: console errors and warnings, and
    uncaught exceptions.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """Runs a headless Chromium."""
    path = find_chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # root has no sandbox
        yield running
        running.close()


def opened(running: Browser, path: Path, width: int) -> Watched:
    """Opens the file at `path` in a window of `width` px and returns it once it has settled."""
    page = running.new_page(viewport={"width": width, "height": 900})
    watched = Watched(page)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on(
        "console",
        lambda message: watched.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (watched.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    return watched
