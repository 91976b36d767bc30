"""What a head of a plan can compute, and a layer of such heads computed in one launch."""
