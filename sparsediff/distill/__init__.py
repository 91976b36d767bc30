"""Sparse-aware step distillation: few steps and sparse attention, trained together without data."""
