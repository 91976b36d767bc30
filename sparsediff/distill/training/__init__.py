"""The training: roles, objectives and the loop on accelerate."""
