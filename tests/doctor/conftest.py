TINY = ("--set", "agent={num_envs: 2, t_max: 5, passes: 1, minibatches: 1, precision: float32}")
