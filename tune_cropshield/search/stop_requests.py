"""How another process asks a running search to stop, or to stop one of its trials: by files in the search's folder.

    .stop-all-0a1b2c3d.request      stop the search
    .stop-t003-0a1b2c3d.request     stop trial 3
    .stop-t003-0a1b2c3d.taken       the search has taken it up

They are empty, so that whoever may write into the folder can ask, from any machine that shares it; no signal is needed.
A search removes what it finds when it starts: a request is for the run that it was made in.
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

REQUEST, TAKEN = ".request", ".taken"
LOOK_EVERY_S = 0.5
NAME = re.compile(r"\.stop-(?:all|t(\d+))-[0-9a-f]{8}")


class StopRequest:
    """One request, as who makes it sees it."""

    def __init__(self, folder: Path, trial: int | None) -> None:
        """trial: the number of the trial to stop, None for the whole search. Nothing is written yet."""
        what = "all" if trial is None else f"t{trial:03d}"
        self._asked = folder / f".stop-{what}-{secrets.token_hex(4)}{REQUEST}"

    def make(self) -> None:
        """Makes the request, or makes it again where a search that was starting has removed it; raises OSError."""
        if not self._asked.exists() and not self.is_taken:
            self._asked.touch()

    @property
    def is_taken(self) -> bool:
        return self._asked.with_suffix(TAKEN).exists()

    def end(self) -> None:
        """Removes its files. One that was not taken up is withdrawn by this."""
        for path in (self._asked, self._asked.with_suffix(TAKEN)):
            with suppress(OSError):
                path.unlink()


class StopRequests:
    """All requests, as the search sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_look = 0.0

    def forget(self) -> None:
        """Removes what was asked of an earlier run of the search."""
        for path, _ in self._files(REQUEST, TAKEN):
            with suppress(OSError):
                path.unlink()

    def take(self) -> list[int | None]:
        """Takes up what was asked since the last look: a trial's number each, None for the whole search.

        It looks twice a second at most; what cannot be read now is read later.
        """
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + LOOK_EVERY_S
        taken = []
        for path, trial in self._files(REQUEST):
            with suppress(OSError):  # it has just been withdrawn
                path.rename(path.with_suffix(TAKEN))
                taken.append(trial)
        return taken

    def _files(self, *suffixes: str) -> list[tuple[Path, int | None]]:
        try:
            paths = sorted(self._folder.glob(".stop-*"))
        except OSError:
            return []
        found = [(path, NAME.fullmatch(path.stem)) for path in paths if path.suffix in suffixes]
        return [(path, int(match[1]) if match[1] else None) for path, match in found if match is not None]
