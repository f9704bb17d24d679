"""Emulated hosts, and what measures on them."""
