"""HSA2C: training by lock-free actor-learners on every node and one asynchronous master over MPI."""
