"""BucketedModel: small models in turn, by timestep, that a stock pipeline takes for one model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.buckets.bucket_files import load_models, save_models
from sparsediff.prune.buckets.shared_weights import byte_count, share_weights
from sparsediff.prune.buckets.timestep_buckets import Buckets
from sparsediff.prune.masks import Masks
from sparsediff.prune.pruned_model import stock_name
from sparsediff.prune.removal import remove


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of weights: ``each`` small model alone, and all ``together``, what they share once."""

    each: tuple[int, ...]
    together: int


class BucketedModel(ModelMixin):  # type: ignore[misc]
    """One small model for each bucket of timesteps; ``models[buckets.place(timestep)]`` runs.

    Put it where the pipeline has its model: ``pipe.unet = BucketedModel(...)``. What a pipeline reads
    of its model (config, dtype, sizes of layers) it reads of the first. Methods that change a model are
    to be called on each of ``models``. All are in memory, see ``memory``: each step is faster, but
    together they are larger than one of them. Sparse attention is enabled on the pipeline as ever, and
    then on every small model. ``last`` is the bucket that ran last.

    Raises SparseError for models of different classes, or not one for each bucket.
    """

    def __init__(self, buckets: Buckets, models: Sequence[nn.Module]) -> None:
        super().__init__()
        names = {stock_name(type(model)) for model in models}
        if len(models) != buckets.count or len(names) != 1:
            raise SparseError(
                f"{len(models)} models of {', '.join(sorted(names)) or 'no class'} for {buckets.count} "
                f"buckets: needs one for each, all of one class."
            )
        share_weights(models)
        self.buckets = buckets
        self.models = nn.ModuleList(models)
        self.last: int | None = None
        self._names = list(inspect.signature(type(models[0]).forward).parameters)[1:]

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the small models' own; raises SparseError for a batch of several buckets."""
        told = dict(zip(self._names, arguments, strict=False)) | named
        self.last = self.buckets.place(torch.as_tensor(told["timestep"]))
        return self.models[self.last](*arguments, **named)

    @property
    def memory(self) -> Memory:
        """Of the weights as they are now."""
        each = tuple(byte_count([model]) for model in self.models)
        return Memory(each=each, together=byte_count(self.models))

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """The small models by name: what sparse attention is enabled on."""
        return {f"models.{place}": model for place, model in enumerate(self.models)}

    @contextmanager
    def cache_context(self, *arguments: Any, **named: Any) -> Iterator[None]:
        """Tell every small model of the branch (and step) that its pipeline computes now."""
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.cache_context(*arguments, **named))  # type: ignore[operator]
            yield

    def save_pretrained(self, folder: Path | str, **ignored: Any) -> None:
        """Write a folder with the small models, shared weights once; raises SparseError.

        A pipeline that has this model saves it along. ``ignored`` are options of diffusers' own method.
        """
        save_models(Path(folder), self.buckets, list(self.models))

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, *, torch_dtype: torch.dtype | None = None, **ignored: Any
    ) -> BucketedModel:
        """What `save_pretrained` wrote, from a folder, on the CPU; SparseError for anything else.

        A pipeline's own from_pretrained calls it, with options (``ignored``) that do not apply here.
        """
        buckets, models = load_models(Path(folder))
        found = cls(buckets, models)
        found.eval()
        if isinstance(torch_dtype, torch.dtype):
            found.to(torch_dtype)
        return found

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "models" or name.startswith("__"):
                raise
        value = getattr(self.models[0], name)
        if callable(value) and not isinstance(value, nn.Module | type):
            raise AttributeError(
                f"BucketedModel has no method {name!r}: call it on each of its small models, "
                f"`for model in bucketed.models: model.{name}(...)`."
            )
        return value


# Where a saved pipeline looks for the class, with ModelMixin beside it.
BucketedModel.__module__ = "sparsediff.prune.buckets"


def bucketed(
    model: nn.Module,
    buckets: Buckets,
    masks: Sequence[Masks],
    *,
    batches: Sequence[Mapping[str, Any]] | None = None,
    heads_multiple_of: int = 1,
) -> BucketedModel:
    """A model cut to the masks of each bucket, as one that switches between them.

    ``masks`` one for each bucket, from scores of that bucket; ``batches`` one for each to check the
    cut models on, see `remove`. The model itself stays whole. Raises SparseError.
    """
    if len(masks) != buckets.count or (batches is not None and len(batches) != buckets.count):
        raise SparseError(
            f"{len(masks)} masks{'' if batches is None else f' and {len(batches)} batches'} for "
            f"{buckets.count} buckets: needs one for each."
        )
    models: list[nn.Module] = []
    for place, one in enumerate(masks):
        batch = None if batches is None else batches[place]
        models.append(remove(model, one, batch=batch, heads_multiple_of=heads_multiple_of))
        share_weights(models)  # at once, so that no more is in memory than need be
    return BucketedModel(buckets, models)
