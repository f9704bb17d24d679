"""``python -m hsa2c rates``: learning rates for p, B and M by Corollary 1 and Eq. 13, and whether conditions hold."""

from __future__ import annotations

import argparse

from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.dpsgd import theory
from hsa2c.dpsgd.steps import corollary_rate
from hsa2c.errors import EXIT_DONE, ConfigError

PROG = "hsa2c rates"

_DESCRIPTION = """Learning rates by Corollary 1 (Eq. 9) and by Eq. 13, and the conditions of Theorem 1 (Eq. 7, 8, 10).

The constants of an objective are rarely known in numbers. So the rates say how to change with p, B, M and T (Eq. 13),
rather than what to begin with."""


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    run = p.add_argument_group("the run")
    run.add_argument("--p", type=int, default=1, help="processes of a node (1)")
    run.add_argument("--B", type=int, default=8, help="updates of each between two exchanges (8)")
    run.add_argument("--M", type=int, default=1, help="deltas in a global step (1)")
    run.add_argument("--T", type=int, default=100_000, help="global steps in all (100000)")
    run.add_argument("--D", type=int, default=1, help="largest delay inside a node, in updates; p - 1 or so (1)")
    run.add_argument("--D-prime", type=int, default=1, help="largest delay between nodes, in global steps (1)")
    run.add_argument("--rate", type=float, default=0.1, help="the best rate at p = B = M = 1, for Eq. 13 (0.1)")
    f = p.add_argument_group("the objective")
    f.add_argument("--L", type=float, default=1.0, help="Lipschitz constant of the gradient (1)")
    f.add_argument("--V", type=float, default=1.0, help="bound on the norm of a stochastic gradient (1)")
    f.add_argument("--gap", type=float, default=1.0, help="f(v_0) - f(v_*) (1)")
    f.add_argument("--alpha", type=float, default=1.0, help="smallest share of an update that is not overwritten (1)")
    f.add_argument("--mu", type=float, default=0.5, help="the constant of A in Corollary 1, between 0 and 1 (0.5)")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code."""
    options = parser().parse_args(arguments)
    return guarded(PROG, lambda: _rates(options))


def _check(options: argparse.Namespace) -> None:
    least = {"p": 1, "B": 1, "M": 1, "T": 1, "D": 0, "D_prime": 0}
    for name, value in least.items():
        if getattr(options, name) < value:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least {value}")
    for name in ("rate", "L", "V", "gap", "alpha"):
        value = getattr(options, name)
        if not 0 < value < float("inf") or (name == "alpha" and value > 1):
            raise ConfigError(f"--{name} {value}: must be greater than 0{', at most 1' if name == 'alpha' else ''}")
    if not 0 < options.mu < 1:
        raise ConfigError(f"--mu {options.mu}: must be between 0 and 1")


def _rates(options: argparse.Namespace) -> int:
    _check(options)
    print("\n".join(_lines(options)))
    return EXIT_DONE


def _lines(o: argparse.Namespace) -> list[str]:
    f = theory.Objective(L=o.L, V=o.V, gap=o.gap, alpha=o.alpha)
    B_tilde, mu = o.p * o.B, o.mu
    rate = theory.equal_rates(f, mu, T=o.T, M=o.M, B_tilde=B_tilde)
    bound = theory.gradient_bound(f, mu, T=o.T, M=o.M, B_tilde=B_tilde)
    eq7 = theory.delay_between_nodes(f, eta=rate, rho=rate, M=o.M, B_tilde=B_tilde, D_prime=o.D_prime)
    eq8 = theory.delay_inside_a_node(f, mu, eta=rate, D=o.D)
    most = max((theory.largest_eta(f, 1 + k / 1000, D=o.D), 1 + k / 1000) for k in range(1, 5000))
    between, _ = theory.fewest_steps(f, mu, M=o.M, B_tilde=B_tilde, D=o.D, D_prime=o.D_prime)
    inside = o.T * (rate / most[0]) ** 4
    return [
        f"Eq. 13  rate for p = {o.p}, B = {o.B}, M = {o.M}, from {o.rate:g} at p = B = M = 1:"
        f" {corollary_rate(o.rate, p=o.p, B=o.B, M=o.M):.6g}",
        f"Eq. 9   rho = eta = {rate:.6g} for T = {o.T:,} (A = {theory.constant_A(f, mu):.6g})",
        f"Eq. 11  mean squared gradient norm at most {bound:.6g}",
        f"Eq. 7   delay between nodes: {eq7:.3g} <= 1: {_word(eq7 <= 1)}; by Eq. 10, T >= {between:,.0f}",
        f"Eq. 8   as printed: {eq8:.6g} <= mu = {mu:g}: {_word(eq8 <= mu)}, and for no rate where 0 < mu < 1, for its"
        " left side is above 1",
        f"        read with mu > 1, which Eq. 10 follows from: eta <= {most[0]:.3g} (at mu = {most[1]:.3f}):"
        f" {_word(rate <= most[0])}; by Eq. 10, T >= {inside:,.0f}",
    ]


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"
