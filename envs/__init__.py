"""Atari environments: names, pre-processing, protocol of evaluation. No torch."""
