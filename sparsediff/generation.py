"""GenerationRecipe: the call a model was made for, kept beside it in generation.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.model_files import ModelFiles

SCHEMA = "sparsediff.generation/1"
DTYPES = ("float32", "bfloat16", "float16")
_WHOLE = ("height", "width", "num_frames", "num_inference_steps", "max_sequence_length")
_REAL = ("guidance_scale", "guidance_scale_2", "true_cfg_scale", "frame_rate")
_OBJECTS = ("prompt_template",)
_TEXTS = ("negative_prompt",)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRecipe:
    """What to pass to a pipeline so that a user types only a prompt.

    ``prompt`` the one used when the user gives none; ``call`` keyword arguments of the pipeline;
    ``fps`` frames per second of the written video; ``dtype`` of the weights, None for the default;
    ``autocast`` dtype of a torch.autocast around the call, or None.

    Raises SparseError for a value of the wrong kind and for unknown keys.
    """

    prompt: str = ""
    call: Mapping[str, Any] = field(default_factory=dict)
    fps: int = 16
    dtype: str | None = None
    autocast: str | None = None

    def __post_init__(self) -> None:
        for name in ("dtype", "autocast"):
            value = getattr(self, name)
            if value is not None and value not in DTYPES:
                raise SparseError(f"{name}={value!r}: needs one of {', '.join(DTYPES)}, or null.")
        if not isinstance(self.prompt, str):
            raise SparseError(f"prompt={self.prompt!r}: needs a text.")
        if not _is_whole(self.fps):
            raise SparseError(f"fps={self.fps!r}: needs a whole number of frames per second.")
        _check_call(self.call)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> GenerationRecipe:
        """Read the content of a generation.json; `source` names it in errors."""
        found = values.get("schema")
        if found != SCHEMA:
            raise SparseError(
                f"{source} is not a generation recipe: its schema is {found!r}; needs {SCHEMA!r}."
            )
        given = {key: value for key, value in values.items() if key != "schema"}
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise SparseError(_unknown(key, known, where=source))
        try:
            return cls(**given)
        except SparseError as error:
            raise SparseError(f"{source}: {error}") from None

    @classmethod
    def of(cls, files: ModelFiles) -> GenerationRecipe:
        """The recipe beside a pipeline; an empty one, the pipeline's defaults, if there is none."""
        values = files.read("generation.json", required=False)
        if values is None:
            return cls()
        return cls.from_dict(values, source=f"{files.name}/generation.json")

    def with_call(self, **changes: Any) -> GenerationRecipe:
        """A copy with some call arguments set; None leaves an argument as it is."""
        changed = {key: value for key, value in changes.items() if value is not None}
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return GenerationRecipe(**(kept | {"call": {**self.call, **changed}}))


def _check_call(call: object) -> None:
    if not isinstance(call, Mapping):
        raise SparseError(f"call={call!r}: needs an object of pipeline arguments.")
    for key, value in call.items():
        if key in _WHOLE:
            if not _is_whole(value):
                raise SparseError(f"{key}={value!r}: needs a whole number >= 1.")
        elif key in _REAL:
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise SparseError(f"{key}={value!r}: needs a number >= 0.")
        elif key in _TEXTS:
            if not isinstance(value, str):
                raise SparseError(f"{key}={value!r}: needs a text.")
        elif key in _OBJECTS:
            if not isinstance(value, dict):
                raise SparseError(f"{key}={value!r}: needs an object.")
        else:
            raise SparseError(_unknown(key, (*_WHOLE, *_REAL, *_TEXTS, *_OBJECTS), where="call"))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _unknown(key: str, known: tuple[str, ...] | list[str], *, where: str) -> str:
    near = get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{where} has an unknown key {key!r}; it may hold {', '.join(known)}.{hint}"
