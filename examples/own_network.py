"""An own network: one hidden layer that policy and value share."""

import torch
from torch import nn

import hsa2c


class Shared(nn.Module):
    def __init__(self, observation_space, action_space):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observation_space.shape[0], 128), nn.ReLU())
        self.policy, self.value = nn.Linear(128, int(action_space.n)), nn.Linear(128, 1)

    def forward(self, observation: torch.Tensor):
        hidden = self.body(observation)
        return self.policy(hidden), self.value(hidden)


if __name__ == "__main__":
    run = hsa2c.train(env="CartPole-v1", network=Shared, agent_steps=30_000)
    print(run.evaluate(games=10)["mean"])
