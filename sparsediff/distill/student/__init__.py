"""The student as files that diffusers loads: saving it, loading it, its few-step scheduler."""
