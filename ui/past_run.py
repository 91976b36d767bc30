"""PastRun: a comparison that was kept, read from its folder; nothing in it is trusted unread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Misfit, Reader, read, wrong
from sparsediff.plans.records import record
from sparsediff.plans.strict_json import parse
from sparsediff.plans.values import one_of, text, whole
from sparsediff.ui.clips import Clips
from sparsediff.ui.kept_file import check_kept_file
from sparsediff.ui.run_document import RUN
from sparsediff.ui.run_figures import RunFigures, run_figures
from sparsediff.ui.settings import Settings

DOCUMENT, POSTER = "run.json", "poster.jpg"
NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")  # when it was made, in UTC, and a random part


def clip_names(*, image: bool) -> tuple[str, str]:
    """What the dense and the sparse half are called."""
    suffix = ".png" if image else ".mp4"
    return f"dense{suffix}", f"sparse{suffix}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PastRun:
    """What `run_document` told of a comparison, and its files in ``folder``, whose name is its own."""

    folder: Path
    made: datetime
    settings: Settings
    figures: RunFigures
    clips: Clips
    model: str
    device_name: str
    dtype: str

    @property
    def name(self) -> str:
        """What the page asks for it by."""
        return self.folder.name

    @property
    def poster(self) -> Path:
        """The small picture of it."""
        return self.folder / POSTER

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is kept of it."""
        return (self.folder / DOCUMENT, self.poster, self.clips.dense, self.clips.sparse)

    @property
    def size(self) -> int:
        """Bytes of its files; raises OSError where one is gone."""
        return sum(path.stat().st_size for path in self.files)

    @classmethod
    def load(cls, folder: Path) -> PastRun:
        """Read a folder; raises SparseError where it is not what `Gallery` writes."""
        if folder.is_symlink() or not folder.is_dir() or not NAME.fullmatch(folder.name):
            raise SparseError(f"{folder.name} is no folder of a run.")
        check_kept_file(folder / DOCUMENT)
        written = parse((folder / DOCUMENT).read_bytes(), source=DOCUMENT)
        parts = read(_run, written, source=f"{folder.name}/{DOCUMENT}")
        result, size = parts["result"], parts["result"]["size"]
        names = clip_names(image=size["frames"] == 1)
        for name in (POSTER, *names):
            check_kept_file(folder / name)
        dense, sparse = (folder / name for name in names)
        return cls(
            folder=folder,
            made=parts["made"],
            settings=parts["settings"],
            figures=result["figures"],
            clips=Clips(dense=dense, sparse=sparse, fps=parts["fps"], **size),
            **{name: result[name] for name in ("model", "device_name", "dtype")},
        )


def _moment(value: object, path: str) -> datetime:
    """In UTC, in which the first and the last day of all years may have no place."""
    try:
        moment = datetime.fromisoformat(text(value, path))
        if moment.tzinfo is None:
            raise wrong(value, path, "a time with its zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong(value, path, "a time such as 2026-01-31T12:00:00+00:00") from None


def _as_is(value: object, path: str) -> object:  # Settings checks its own
    return value


def _result(value: object, path: str) -> dict[str, Any]:
    """What is used of `GenerationResult.to_dict`."""
    figures = run_figures(value, path)
    if not isinstance(value, Mapping):
        raise Misfit(f"{path} is no object.")
    size: dict[str, int] = _SIZE(value.get("size"), f"{path}.size")
    words = {
        name: text(value.get(name), f"{path}.{name}") for name in ("model", "device_name", "dtype")
    }
    return {"figures": figures, "size": size, **words}


_SIZE: Reader[dict[str, int]] = record(
    dict, {n: whole(1, 2**20) for n in ("width", "height", "frames")}, may_lack=()
)
_READERS: dict[str, Reader[Any]] = {
    "schema": one_of(RUN),
    "made": _moment,
    "fps": whole(1, 1000),
    "settings": record(Settings, {field.name: _as_is for field in fields(Settings)}),
    "result": _result,
}
_run: Reader[dict[str, Any]] = record(dict, _READERS, may_lack=())
