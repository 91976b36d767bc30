"""The offline pattern search of Sparse-vDiT (arXiv 2506.03065 §2.2), run over many prompts.

What to measure and how to choose is in `sparsediff.search`; here are the run folder that survives an
interruption, the division of the prompts among processes, and the budget that the user names.
"""
