"""Both algorithms on a simulated clock: how fast a cluster would be."""
