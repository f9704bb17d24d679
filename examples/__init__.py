"""Applications of the DPSGD core beside the one that it comes with."""
