"""Runs: processes, signals, files. Knows the DPSGD core, but no application of it."""
