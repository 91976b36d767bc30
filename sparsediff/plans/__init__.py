"""Plans: what a search found, in files that people share and load without risk."""

from sparsediff.plans.evidence import Evidence
from sparsediff.plans.fingerprint import Fingerprint
from sparsediff.plans.pattern_plan import PatternPlan

__all__ = ["Evidence", "Fingerprint", "PatternPlan"]
