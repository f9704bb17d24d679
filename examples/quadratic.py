"""An own problem on the bare core: no run directory, no launcher. Nodes are threads, actor-learners processes."""

import threading

import numpy as np
import torch

from hsa2c import Problem
from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Monitor
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import worker
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.process_pool import ProcessPool
from hsa2c.transport.inprocess import connect


class Quadratic(Problem):
    def gradient(self, u_hat, interrupted):
        return u_hat - 3.0 + 0.1 * torch.randn(len(u_hat))  # of |u - 3|^2 / 2, with noise


class Until(Monitor):
    t = 0

    def stepped(self, t, v):
        self.t = t

    def stopping(self):
        return self.t >= 100


def main(nodes=2, p=2, B=8, dim=10):
    layout = DenseLayout(dim, Rule(name="sgd", learning_rate=0.05))
    pools = [ProcessPool(lambda index: Quadratic(), layout, p) for _ in range(nodes)]  # they fork: before any thread
    port, node_ports = connect(nodes)
    for node_port, pool in zip(node_ports, pools, strict=True):
        threading.Thread(target=worker, args=(node_port, pool, B), daemon=True).start()
    monitor, v = Until(), np.zeros(dim, np.float32)
    port.assemble(monitor)
    master(v, GlobalStep(1 / nodes, 0.0, dim), port, monitor, M=nodes)  # rho = 1 / M: the mean of the deltas
    for pool in pools:
        pool.close()
    return v


if __name__ == "__main__":
    print(main())
