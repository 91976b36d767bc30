"""Roles: teacher, student and fake score, played by one base with two adapters, or by three models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sparsediff.distill.training.adapters import add_adapters
from sparsediff.distill.training.sharding import shard
from sparsediff.kernels.errors import SparseError
from sparsediff.session import Session

Role = Literal["teacher", "student", "fake"]
TRAINED: tuple[Role, Role] = ("student", "fake")


class Roles(Protocol):
    """Who plays which role; what it takes to play one is undone when its with-block ends."""

    def playing(self, role: Role) -> Any:
        """Context manager that gives the model that plays `role`, dense or sparse as it should be."""

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The parameters that training `role` changes, by name."""

    def trained(self, role: Role) -> nn.Module:
        """The model of a role without accelerate's wrapping."""

    def called(self, role: Role) -> nn.Module:
        """What is called for a role: the model as accelerate wrapped it."""

    def prepare(self, accelerator: Any, *, sharded: bool = False) -> None:
        """Let accelerate wrap what is trained, or spread every model over the processes."""

    def each(self, change: Callable[[Any], Any]) -> None:
        """Do something to every model that is trained."""

    def rest(self) -> None:
        """An iteration is over: nothing of it has to be remembered."""

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Let student and fake begin as an earlier student, by the names of its own parameters."""


class LoraRoles:
    """One base model: adapters "student" and "fake", and the teacher is the base without either.

    The base is frozen before the adapters come, and both adapters always stay trainable: which one a
    backward pass reaches follows from which one took part in the forward pass. They are float32
    whatever the base is, and begin alike for the same `seed`. `session`: sparse attention of the base,
    in effect for the roles in `sparse` only. Raises SparseError for targets that it does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rank: int,
        alpha: float,
        targets: Sequence[str],
        session: Session | None = None,
        sparse: Sequence[Role] = TRAINED,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.wrapped: nn.Module = model  # what is called: accelerate puts its wrapper here
        self.session = session
        self.sparse = tuple(sparse)
        model.requires_grad_(False)
        add_adapters(model, TRAINED, rank=rank, alpha=alpha, targets=targets, seed=seed)
        self._adapters = self._found()
        self._keep_trainable()

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """The adapter of a role."""
        return {name: value for name, value in self.model.named_parameters() if f".{role}." in name}

    def trained(self, role: Role) -> nn.Module:
        """The base."""
        return self.model

    def called(self, role: Role) -> nn.Module:
        """The base, as accelerate wrapped it."""
        return self.wrapped

    def prepare(self, accelerator: Any, *, sharded: bool = False) -> None:
        """Wrap or shard the base once; both adapters are trained through it."""
        if sharded:
            shard(self.model, accelerator)
        else:
            self.wrapped = accelerator.prepare(self.model)
        self._adapters = self._found()  # sharding exchanges every parameter

    def each(self, change: Callable[[Any], Any]) -> None:
        """Do something to the base."""
        change(self.model)

    def rest(self) -> None:
        """Free what the session keeps of a run."""
        if self.session is not None:
            self.session.end_run()

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Put an earlier adapter's weights, ``layer.lora_A.weight``, into both adapters."""
        for role in TRAINED:
            _copy(self.parameters(role), weights, f".{role}")

    @contextmanager
    def playing(self, role: Role) -> Iterator[nn.Module]:
        """The base with the adapter of `role`, or with none for the teacher."""
        adapted: Any = self.model
        if role == "teacher":
            adapted.disable_adapters()
        else:
            adapted.enable_adapters()
            adapted.set_adapter(role)
        self._keep_trainable()
        with _density(self.session, dense=role not in self.sparse):
            yield self.wrapped

    def _keep_trainable(self) -> None:
        """Switching adapters freezes the others; optimisers and wrappers count on constant sets."""
        for value in self._adapters:
            value.requires_grad_(True)

    def _found(self) -> list[nn.Parameter]:
        """The parameters of both adapters, looked for once: every call of the model needs them."""
        return [value for role in TRAINED for value in self.parameters(role).values()]


class FullRoles:
    """Three models: the frozen teacher and two copies of it, all of whose weights are trained.

    Raises SparseError for weights that are not float32: smaller ones would not take up small updates.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        session_of: Any = None,
        sparse: Sequence[Role] = TRAINED,
    ) -> None:
        coarse = {str(p.dtype) for p in model.parameters()} - {"torch.float32"}
        if coarse:
            raise SparseError(
                f"All weights are to be trained, and {type(model).__name__} has some of {min(coarse)}, "
                f"too coarse for small updates. Use --dtype float32, with --precision bf16 to save "
                f"time, or train a LoRA."
            )
        self.models: dict[Role, nn.Module] = {
            "teacher": model,
            "student": copy.deepcopy(model),
            "fake": copy.deepcopy(model),
        }
        model.requires_grad_(False)
        self.wrapped = dict(self.models)
        self.sessions: dict[Role, Session] = {}
        for role in TRAINED:
            self.models[role].requires_grad_(True)
            if session_of is not None and role in sparse:
                self.sessions[role] = session_of(self.models[role])

    def parameters(self, role: Role) -> dict[str, nn.Parameter]:
        """All parameters of the model of a role."""
        return dict(self.models[role].named_parameters())

    def trained(self, role: Role) -> nn.Module:
        """The model of a role."""
        return self.models[role]

    def called(self, role: Role) -> nn.Module:
        """The model of a role, as accelerate wrapped it."""
        return self.wrapped[role]

    def prepare(self, accelerator: Any, *, sharded: bool = False) -> None:
        """Wrap student and fake, the teacher only moves to the device; or shard all three."""
        if sharded:
            for model in self.models.values():
                shard(model, accelerator)
            return
        for role in TRAINED:
            self.wrapped[role] = accelerator.prepare(self.models[role])
        self.models["teacher"].to(accelerator.device)

    def each(self, change: Callable[[Any], Any]) -> None:
        """Do something to student and fake."""
        for role in TRAINED:
            change(self.models[role])

    def rest(self) -> None:
        """Free what the sessions keep of a run."""
        for session in self.sessions.values():
            session.end_run()

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Put an earlier student's weights into both models."""
        for role in TRAINED:
            _copy(self.parameters(role), weights, "")

    @contextmanager
    def playing(self, role: Role) -> Iterator[nn.Module]:
        """The model of a role."""
        yield self.wrapped[role]


def _copy(values: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor], mark: str) -> None:
    """Copy weights into parameters, whose names have `mark` in addition."""
    wanted = {name.replace(mark, "", 1) if mark else name: value for name, value in values.items()}
    wrong = set(wanted) ^ set(weights)
    wrong |= {n for n in set(wanted) & set(weights) if wanted[n].shape != weights[n].shape}
    if wrong:
        raise SparseError(
            f"The earlier student does not fit: {len(wrong)} weights are missing, too many or of "
            f"another shape, such as {min(wrong)}. Use its rank and its layers."
        )
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(weights[name])


def _density(session: Session | None, *, dense: bool) -> Any:
    return session.pause() if session is not None and dense else nullcontext()
