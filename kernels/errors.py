"""Errors that a user can cause; each says what was found, what is needed and what to do."""


class SparseError(ValueError):
    """A wrong input, configuration or file; base of every error that sparsediff raises on purpose."""


class BackendError(SparseError):
    """A named backend cannot compute the given inputs; the message lists its reasons."""


class UnsupportedModelError(SparseError):
    """The model has no self-attention that sparsediff knows how to reach."""


class AlreadyEnabledError(SparseError):
    """Sparse attention is already enabled on the target."""


class PlanError(SparseError):
    """A file of a plan cannot be read, or what it says is wrong; the message names file and place."""


class PlanMismatchError(SparseError):
    """A plan was searched for another model or another grid; the message names every difference."""
