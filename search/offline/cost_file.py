"""The file that keeps measured costs: one per machine and user, beside the ranking of the kernels."""

from __future__ import annotations

from sparsediff.kernels.measured_file import MeasuredFile
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.offline.cost_curves import CostCurves
from sparsediff.search.offline.cost_trial import CostTrial

FILE = MeasuredFile(
    name="costs.json",
    schema="sparsediff.costs/1",
    parse=CostCurves.from_dict,
    plain=CostCurves.to_dict,
    subject="costs of patterns",
)


def curves_of(case: CostCase) -> CostCurves:
    """What was measured for such a case on this machine with these versions, or is measured now.

    Of several processes that measure at once, the first result is kept by all. Raises BackendError
    when the case's backend cannot run it, and whatever a device without room raises.
    """
    kernel = case.kernel()
    key = case.key(kernel)
    known = FILE.load().get(key)
    if known is not None:
        return known
    return FILE.save(key, CostTrial.of(case, kernel).curves(), replace=False)
