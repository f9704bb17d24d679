"""Machines: hosts, allocations, mpiexec, Slurm."""
