"""An own environment: walk on a line to where one should be."""

import gymnasium as gym

import hsa2c


class Reach(gym.Env):
    observation_space, action_space = gym.spaces.Box(-9, 9, (2,)), gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.places, self.steps = self.np_random.uniform(-1, 1, 2).astype("float32"), 0
        return self.places.copy(), {}

    def step(self, action):
        self.places[0] += 0.1 * (action - 1)
        self.steps += 1
        return self.places.copy(), -abs(self.places[0] - self.places[1]), False, self.steps == 20, {}


if __name__ == "__main__":
    run = hsa2c.train(env=Reach, agent_steps=40_000, name="reach")
    print(run.evaluate(games=20)["mean"], run.load(greedy=True)([-0.5, 0.5]))
