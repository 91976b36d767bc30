"""Finding a plan: profiles, candidates, costs, trials and the choice (Sparse-vDiT §2.2)."""
