"""The actor-critic for any Gymnasium environment: spaces, networks, losses, rollouts by autograd."""
