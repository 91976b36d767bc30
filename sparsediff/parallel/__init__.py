"""Several GPUs: sparse attention under diffusers' own context parallelism (docs/parallel.md)."""
