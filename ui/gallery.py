"""Gallery: past runs in a folder of this machine, so that they are there after a restart."""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from sparsediff.kernels.cpu.build import cache_folder
from sparsediff.kernels.errors import SparseError
from sparsediff.ui.clips import Clips
from sparsediff.ui.comparison import Compared
from sparsediff.ui.past_run import DOCUMENT, NAME, POSTER, PastRun, clip_names
from sparsediff.ui.poster import poster
from sparsediff.ui.run_document import run_document

logger = logging.getLogger("sparsediff")
_HALF_WRITTEN = re.compile(rf"\.{NAME.pattern}\.tmp")
_DAY = 24 * 3600  # seconds after which nobody is writing it any more


def gallery_folder() -> Path:
    """Where past runs are kept unless somebody says otherwise."""
    return cache_folder() / "past-runs"


class Gallery:
    """At most `most_runs` runs and `most_bytes` of them; the oldest are removed.

    Several processes may share a folder. What is in it and is no run is left alone and passed over,
    with a line in the log. No method fails for what it finds on the disk.
    """

    def __init__(self, folder: Path, *, most_runs: int = 60, most_bytes: int = 2**30) -> None:
        self.folder = folder
        self.most_runs = most_runs
        self.most_bytes = most_bytes
        self._known: dict[str, PastRun | None] = {}
        self._lock = threading.Lock()
        self._sweep_up()

    def runs(self) -> tuple[PastRun, ...]:
        """All that can be opened, the newest first."""
        with self._lock:
            return self._runs()

    def get(self, name: str) -> PastRun | None:
        """The run of this name, read anew; None for a name that ``runs`` does not have."""
        with self._lock:
            self._known.pop(name, None)
            return next((run for run in self._runs() if run.name == name), None)

    def add(self, compared: Compared, clips: Clips) -> PastRun | None:
        """Keep a comparison with copies of its clips; None, with a line in the log, if that fails."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
        beside = self.folder / f".{name}.tmp"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(beside, compared, clips, most_bytes=self.most_bytes)
            beside.rename(self.folder / name)
        except (OSError, SparseError, ValueError) as error:
            logger.warning("this run is not kept in %s: %s", self.folder, error)
            return None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        with self._lock:
            self._make_room()
        return self.get(name)

    def _runs(self) -> tuple[PastRun, ...]:
        try:
            found = {path.name: path for path in self.folder.iterdir()}
        except FileNotFoundError:
            found = {}
        except OSError as error:
            logger.warning("past runs cannot be read: %s", error)
            found = {}
        self._known = {name: run for name, run in self._known.items() if name in found}
        for name in found.keys() - self._known.keys():
            if not _HALF_WRITTEN.fullmatch(name):
                self._known[name] = _read(found[name])
        runs = [run for run in self._known.values() if run is not None]
        return tuple(sorted(runs, key=lambda run: run.name, reverse=True))

    def _make_room(self) -> None:
        taken = 0
        for number, run in enumerate(self._runs()):
            try:
                taken += run.size
                if number >= self.most_runs or taken > self.most_bytes:
                    _remove(run)
            except OSError as error:  # somebody else is removing it too
                logger.warning("past run %s: %s", run.name, error)

    def _sweep_up(self) -> None:
        """Remove what a process left that ended while it wrote."""
        for path in self.folder.glob(".*.tmp"):
            if _HALF_WRITTEN.fullmatch(path.name) and not path.is_symlink():
                try:
                    old = time.time() - path.stat().st_mtime > _DAY
                except OSError:
                    continue
                if old:
                    shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, compared: Compared, clips: Clips, *, most_bytes: int) -> None:
    size = clips.dense.stat().st_size + clips.sparse.stat().st_size
    if size > most_bytes:
        raise SparseError(f"its videos have {size} bytes, all runs together may have {most_bytes}")
    folder.mkdir()
    for source, name in zip(
        (clips.dense, clips.sparse), clip_names(image=clips.is_image), strict=True
    ):
        shutil.copyfile(source, folder / name)
    (folder / POSTER).write_bytes(poster(compared.result))
    text = json.dumps(run_document(compared), indent=1, allow_nan=False)
    (folder / DOCUMENT).write_text(text, encoding="utf-8")


def _read(path: Path) -> PastRun | None:
    try:
        return PastRun.load(path)
    except (SparseError, OSError) as error:
        logger.warning("passed over in %s: %s", path.parent, error)
        return None


def _remove(run: PastRun) -> None:
    """Remove the files of a run, and its folder unless somebody put others there."""
    for path in run.files:
        path.unlink(missing_ok=True)
    run.folder.rmdir()
