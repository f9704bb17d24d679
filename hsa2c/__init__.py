"""HSA2C: train Atari agents with lock-free actor-learners on every node and one asynchronous master over MPI."""
