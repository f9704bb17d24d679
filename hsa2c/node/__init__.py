"""A node: p actor-learner processes that share one vector in memory."""
