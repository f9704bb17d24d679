"""A run: launcher, directory, the processes of master and nodes, checkpoints."""
