"""A cluster that learns, on a simulated clock: see `bench.virtual.__main__`."""
