"""Benchmarks: one command a question. Each prints what it measured, and on what."""
