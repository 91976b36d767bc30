"""Two of every four weights: 2:4 masks, one-shot or learnt, and layers that compute with half."""
