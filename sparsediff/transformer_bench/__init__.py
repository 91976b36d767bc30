"""Full-size denoising steps with random weights: how long a step takes, dense and sparse.

Speed only. Random weights give every key about the same attention, so nothing that comes out of these
models says anything about quality; the time of a step does not depend on what the weights are.
"""
