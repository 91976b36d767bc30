"""Convolution channels of a UNet, by Torch-Pruning's dependency graph (extra ``channels``).

Diff-Pruning (Fang et al., 2023), section 3, with magnitudes as importance. Unlike heads, neurons and
blocks this is not exact: a GroupNorm takes its mean over fewer channels, so a mask that the cut model
could be held against does not exist, and the model needs training afterwards. Heads are left whole:
the graph knows neither their number nor the scale of their scores; `remove` cuts them. The sizes stand
in no config, so what is left is kept as a state dict; `from_pretrained` refuses it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError, UnsupportedModelError

Scope = Literal["hidden", "all"]
_HEADS = (".to_q", ".to_k", ".to_v")


def without_channels(
    unet: nn.Module, *, ratio: float, batch: Mapping[str, Any], scope: Scope = "hidden"
) -> nn.Module:
    """A copy of a UNet without about `ratio` of its channels, those of the smallest magnitude.

    ``scope``: "hidden" takes channels inside resnets, "all" those of the residual stream too. Every
    normalisation group loses equally many, so groups smaller than 1 / ratio stay whole. ``batch``:
    arguments of the model, by which its graph is traced, and on which the copy must run.

    Raises SparseError for a ratio outside [0, 1), without torch-pruning, or where the copy does not
    run; UnsupportedModelError for a model that is no UNet.
    """
    if not 0 <= ratio < 1:
        raise SparseError(f"ratio={ratio}: needs a share from 0 on, below 1.")
    if find_spec("torch_pruning") is None:
        raise SparseError("Channels need torch-pruning: pip install 'sparsediff[channels]'.")
    groups: int | None = getattr(getattr(unet, "config", None), "norm_num_groups", None)
    if type(unet).__name__.removeprefix("Pruned") != "UNet2DConditionModel" or not groups:
        raise UnsupportedModelError(
            f"{type(unet).__name__} has no channels that can be cut: needs a UNet2DConditionModel "
            f"with group norms."
        )
    smaller = copy.deepcopy(unet)
    arguments = {**batch, "return_dict": False}
    _cut_channels(smaller, arguments, ratio, groups, scope)
    _count_channels(smaller)
    try:
        with torch.no_grad():
            smaller(**arguments)
    except RuntimeError as error:
        raise SparseError(f"The UNet does not run without these channels: {error}.") from error
    return smaller


def _cut_channels(
    unet: nn.Module, arguments: dict[str, Any], ratio: float, groups: int, scope: Scope
) -> None:
    import torch_pruning

    names = {module: name for name, module in unet.named_modules()}
    trainable = {name: p.requires_grad for name, p in unet.named_parameters()}
    unet.requires_grad_(True)  # the graph is read off autograd
    # Tuples are not traced; the first output is all that a UNet has.
    graph = torch_pruning.DependencyGraph().build_dependency(
        unet, example_inputs=arguments, forward_fn=lambda model, inputs: model(**inputs)[0]
    )
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    for group in list(_groups(graph, unet, names, scope)):
        lost = _weakest(importance(group), ratio, groups)
        if lost:
            root = group[0].dep.target.module
            graph.get_pruning_group(root, torch_pruning.prune_conv_out_channels, idxs=lost).prune()
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(trainable[name])


def _groups(
    graph: Any, unet: nn.Module, names: Mapping[nn.Module, str], scope: Scope
) -> Iterator[Any]:
    """Groups of channels that go together; none that reaches the heads of an attention."""
    # Layers of time embeddings must not be ignored: a group that cuts an ignored layer is left out.
    ignored = [unet.get_submodule("conv_out")]
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d], ignored_layers=ignored):
        root = names.get(group[0].dep.target.module, "")
        reached = [
            names.get(item.dep.target.module, "")
            for item in group
            if graph.is_out_channel_pruning_fn(item.dep.handler)
        ]
        heads = any(name.endswith(_HEADS) for name in reached)
        if not heads and (scope == "all" or root.endswith(".conv1")):
            yield group


def _weakest(importance: Tensor, ratio: float, groups: int) -> list[int]:
    """Places of the least important channels, equally many of each normalisation group."""
    if len(importance) % groups:
        return []
    size = len(importance) // groups
    order = importance.view(groups, size).argsort(dim=1)[:, : int(size * ratio)]
    places = order + size * torch.arange(groups, device=order.device)[:, None]
    return sorted(places.flatten().tolist())


def _count_channels(unet: nn.Module) -> None:
    """The numbers of channels that diffusers' modules keep and check in every call."""
    for module in unet.modules():
        kept: Any = module
        name = type(module).__name__
        if name in ("Downsample2D", "Upsample2D") and isinstance(kept.conv, nn.Conv2d):
            kept.channels, kept.out_channels = kept.conv.in_channels, kept.conv.out_channels
        if name == "ResnetBlock2D":
            kept.in_channels, kept.out_channels = kept.conv1.in_channels, kept.conv2.out_channels
