"""The folder of a bucketed model: a JSON file, and for each bucket its config and its own weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsediff.distill.student.whole_folder import whole_folder
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.buckets.bucket_document import (
    BUCKETS,
    SCHEMA,
    Shared,
    document_text,
    parsed,
    read_document,
)
from sparsediff.prune.buckets.timestep_buckets import MOST, Buckets
from sparsediff.prune.pruned_model import PREFIX, pruned_class
from sparsediff.prune.tensor_file import TensorFile

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def save_models(folder: Path, buckets: Buckets, models: Sequence[Any]) -> None:
    """Write them, all or nothing, each shared tensor with the first bucket that has it."""
    from safetensors.torch import save_file

    with whole_folder(folder, last=BUCKETS, old=[_folder(n) for n in range(MOST)]) as scratch:
        owners: dict[int, str] = {}
        shared: Shared = []
        for place, model in enumerate(models):
            own, lent = _divided(model, place, owners)
            shared.append(lent)
            (scratch / _folder(place)).mkdir()
            save_file(own, scratch / _folder(place) / WEIGHTS, metadata={"schema": SCHEMA})
            model.save_config(scratch / _folder(place))
        classes = [type(model).__name__ for model in models]
        text = document_text(buckets, classes, shared)
        (scratch / BUCKETS).write_text(text, encoding="utf-8")


def load_models(folder: Path) -> tuple[Buckets, list[nn.Module]]:
    """What `save_models` wrote, on the CPU; SparseError names the file that is something else."""
    buckets, classes, shared = read_document(folder / BUCKETS)
    known: dict[str, Tensor] = {}
    models = []
    for place, name in enumerate(classes):
        inside = folder / _folder(place)
        tensors = TensorFile.read(inside / WEIGHTS, schema=SCHEMA, what="weights").tensors
        for own, x in tensors.items():
            known[f"{place}/{own}"] = nn.Parameter(x) if x.is_floating_point() else x
        told = {own: known[f"{place}/{own}"] for own in tensors}
        for lent, owner in shared[place].items():
            if owner not in known or lent in told:
                raise SparseError(
                    f"{folder / BUCKETS}: {place}/{lent} shares {owner}, which is not there."
                )
            told[lent] = known[owner]
        models.append(_filled(_empty(name, inside / CONFIG), told, inside))
    return buckets, models


def _divided(
    model: nn.Module, place: int, owners: dict[int, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors that are this model's first, and where those of earlier ones are."""
    own, lent = {}, {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, x in model.state_dict(keep_vars=True).items():
        owner = owners.get(id(parameters.get(name)))
        if owner is not None:
            lent[name] = owner
            continue
        own[name] = x.detach().cpu().contiguous()
        if name in parameters:
            owners[id(parameters[name])] = f"{place}/{name}"
    return own, lent


def _empty(name: str, config: Path) -> nn.Module:
    """A model of the tables' classes, without weights."""
    import diffusers
    from accelerate import init_empty_weights

    cls = pruned_class(name) or (
        getattr(diffusers, name) if pruned_class(f"{PREFIX}{name}") is not None else None
    )
    if cls is None:
        raise SparseError(f"{config}: sparsediff prunes no {name!r:.80}; update it, or diffusers.")
    values = parsed(config)
    if not isinstance(values, dict):
        raise SparseError(f"{config} is no config of a model: needs an object.")
    try:
        with init_empty_weights():
            made: nn.Module = cls.from_config(values)
    except SparseError:
        raise
    except Exception as error:  # whatever the class makes of values that are none of its own
        raise SparseError(f"{config} makes no {name}: {error}") from error
    return made


def _filled(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    wanted = model.state_dict()
    odd = [
        name
        for name in sorted({*wanted, *tensors})
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    ]
    if odd:
        raise SparseError(
            f"{folder}: {len(odd)} tensors are not those of its config, such as {odd[0]}. Save the "
            f"model again."
        )
    buffers = {name for name, _ in model.named_buffers()}
    plain = {n: x.detach() if n in buffers else x for n, x in tensors.items()}
    model.load_state_dict(plain, assign=True)
    return model


def _folder(place: int) -> str:
    return f"bucket-{place}"
