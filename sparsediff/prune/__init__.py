"""Learnable pruning masks: which heads, neurons and blocks a model can lose, and cutting them out."""
