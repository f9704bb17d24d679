"""Advantage actor-critic agents: network, returns, losses, rollout. Environments reach an agent as an argument."""
