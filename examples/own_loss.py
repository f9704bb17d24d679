"""An own loss: advantages count only where they are positive (self-imitation, Oh et al. 2018)."""

import hsa2c


def loss(batch, output):
    gain = (batch.returns - output.values).clamp(min=0)
    policy = -(gain.detach() * output.log_p)
    sample = policy + 0.5 * (batch.returns - output.values).square() - 0.01 * output.entropy
    return sample[batch.valid].mean()


if __name__ == "__main__":
    run = hsa2c.train(env="CartPole-v1", loss=loss, agent_steps=30_000)
    print(run.evaluate(games=10)["mean"])
