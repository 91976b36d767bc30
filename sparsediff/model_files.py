"""ModelFiles: the small files of a pipeline, from a folder or the Hub, without its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsediff.kernels.errors import SparseError, UnsupportedModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """A diffusers pipeline by folder or Hub id.

    Raises SparseError when `name` is a folder without model_index.json, a path that does not exist, or
    a Hub id that cannot be reached. A path is never looked up on the Hub.
    """

    name: str

    @property
    def folder(self) -> Path | None:
        """The folder, or None for a Hub id."""
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        if path.exists() or self.name.count("/") != 1 or self.name[0] in "./~":
            raise SparseError(
                f"There is no model at {self.name!r}: needs a folder that holds model_index.json, "
                f"or a Hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
            )
        return None

    def read(self, file: str, *, required: bool = True) -> dict[str, Any] | None:
        """A JSON object of the pipeline by its path inside it; None when absent and not required."""
        folder = self.folder
        path = folder / file if folder else self._download(file, required=required)
        if path is None or not path.is_file():
            if required:
                raise SparseError(
                    f"{self.name} has no {file}, so it is not a diffusers pipeline. Point to the "
                    f"folder that save_pretrained wrote."
                )
            return None
        return read_object(path)

    def index(self) -> dict[str, Any]:
        """The content of model_index.json."""
        return self.read("model_index.json") or {}

    def components(self) -> dict[str, str]:
        """Class name of every component that the pipeline holds."""
        return {
            name: entry[1]
            for name, entry in self.index().items()
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
        }

    def denoisers(self) -> dict[str, str]:
        """Class name of the components that sparse attention reaches.

        Raises UnsupportedModelError when there is none; nothing but model_index.json is read.
        """
        from sparsediff.models import refusal, supported_models
        from sparsediff.prune.pruned_model import PREFIX

        known = supported_models()
        components = self.components()
        found = {name: cls for name, cls in components.items() if cls.removeprefix(PREFIX) in known}
        if not found:
            classes = sorted(set(components.values()))
            raise UnsupportedModelError(
                f"{self.name} is a {self.index().get('_class_name', 'pipeline')} with "
                f"{', '.join(classes) or 'no components'}; none of them is supported. "
                f"{refusal(classes)}"
            )
        return found

    def _download(self, file: str, *, required: bool) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, file))
        except (OSError, ValueError, EntryNotFoundError) as error:
            offline = isinstance(error, LocalEntryNotFoundError)
            if isinstance(error, EntryNotFoundError) and not (offline and required):
                return None
            reason = str(error).strip().splitlines()
            raise SparseError(
                f"{file} of {self.name!r} could not be read from the Hub: "
                f"{reason[0] if reason else type(error).__name__} Check the name, the network and "
                f"your access, or give a local folder."
            ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises SparseError when it is anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SparseError(f"{path} could not be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise SparseError(f"{path} holds a JSON {type(value).__name__}; needs an object.")
    return value
