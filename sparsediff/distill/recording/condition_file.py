"""A file of conditions: prompts as their embeddings, made where the text encoders are.

One safetensors file. Its metadata has, under "sparsediff_conditions", JSON that says how the tensors
belong together; equal tensors, such as every prompt's negative side, are stored once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.tree import Tree, leaves
from sparsediff.distill.whole_file import whole_file
from sparsediff.kernels.errors import SparseError

_KEY = "sparsediff_conditions"
_FORMAT = 1
_PLAIN = (bool, int, float, str, type(None))


def save_conditions(path: Path | str, conditions: Sequence[Conditions]) -> None:
    """Write conditions, one for each prompt; the file appears complete or not at all.

    Raises SparseError for none, for values that JSON and safetensors cannot hold, and for a full disk.
    """
    from safetensors.torch import save_file

    if not conditions:
        raise SparseError(f"{path}: there are no conditions to save.")
    tensors: dict[str, Tensor] = {}
    prompts = [
        {
            "positive": _written(one.positive, tensors),
            "negative": None if one.negative is None else _written(one.negative, tensors),
            "batched": sorted(one.batched),
        }
        for one in conditions
    ]
    about = json.dumps({"format": _FORMAT, "prompts": prompts})
    with whole_file(Path(path)) as beside:
        save_file(tensors, beside, metadata={_KEY: about})


def load_conditions(path: Path | str) -> list[Conditions]:
    """Read what `save_conditions` wrote, each prompt with tensors of its own.

    Raises SparseError for a file of another kind, naming what is wrong in it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _read(about, tensors)
    except KeyError as error:
        raise SparseError(f"{path} has no {error}; needs a file of save_conditions.") from None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise SparseError(f"{path} is not a file of conditions: {error}") from None
    except SparseError as error:
        raise SparseError(f"{path}: {error}") from None


def _written(tree: Tree, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """A tree as JSON, its tensors put aside under their contents' name."""
    if isinstance(tree, Tensor):
        plain = tree.detach().cpu().contiguous()
        name = _name(plain)
        tensors.setdefault(name, plain.clone())
        return {"tensor": name}
    if isinstance(tree, Mapping):
        return {"dict": {str(name): _written(value, tensors) for name, value in tree.items()}}
    if isinstance(tree, list | tuple):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_written(value, tensors) for value in tree]}
    if not isinstance(tree, _PLAIN):
        raise SparseError(
            f"A condition is a {type(tree).__name__}, {tree!r:.80}; a file holds tensors, numbers, "
            f"texts and None."
        )
    return {"value": tree}


def _name(x: Tensor) -> str:
    digest = hashlib.sha256(f"{x.dtype}{list(x.shape)}".encode())
    digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(about: Any, tensors: Mapping[str, Tensor]) -> list[Conditions]:
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise SparseError(f"format={found!r:.80}: this version of sparsediff reads {_FORMAT}.")
    prompts = about.get("prompts")
    if set(about) != {"format", "prompts"} or not isinstance(prompts, list) or not prompts:
        raise SparseError('needs "format" and "prompts", a list with something in it.')
    return [_conditions(prompt, tensors) for prompt in prompts]


def _conditions(prompt: Any, tensors: Mapping[str, Tensor]) -> Conditions:
    if not isinstance(prompt, dict) or set(prompt) != {"positive", "negative", "batched"}:
        raise SparseError("every prompt needs positive, negative and batched.")
    sides = [
        None if prompt[name] is None else _tree(prompt[name], tensors)
        for name in ("positive", "negative")
    ]
    batched = prompt["batched"]
    for side in sides[: 1 if sides[1] is None else 2]:
        known = leaves(side) if isinstance(side, dict) else None
        if (
            known is None
            or not isinstance(batched, list)
            or not set(map(str, batched)) <= set(known)
        ):
            raise SparseError(
                f"batched={batched!r:.80}: needs to name tensors of the positive and the negative side."
            )
    return Conditions(positive=sides[0] or {}, negative=sides[1], batched=frozenset(batched))


def _tree(written: Any, tensors: Mapping[str, Tensor]) -> Tree:
    if isinstance(written, dict) and len(written) == 1:
        ((kind, value),) = written.items()
        if kind == "tensor" and isinstance(value, str) and value in tensors:
            return tensors[value].clone()
        if kind == "dict" and isinstance(value, dict):
            return {name: _tree(item, tensors) for name, item in value.items()}
        if kind in {"list", "tuple"} and isinstance(value, list):
            items = [_tree(item, tensors) for item in value]
            return tuple(items) if kind == "tuple" else items
        if kind == "value" and isinstance(value, _PLAIN):
            return value
    raise SparseError(
        f"{written!r:.80}: needs a tensor of the file, a value, a dict, a list or a tuple."
    )
