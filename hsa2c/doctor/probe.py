"""A process on each host that looks around there and tells what it sees; no MPI, so nobody waits for anybody.

``python -m hsa2c.doctor.probe TASK``, started by mpiexec, or by the launcher where a run has no MPI.
"""

from __future__ import annotations

import os
import sys

from hsa2c.cluster.machine import cap_threads, cores, keep_freed_memory, share_of_cores

cap_threads()  # before numpy and torch are loaded below
keep_freed_memory()

import json  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from hsa2c import application  # noqa: E402
from hsa2c.application import Application  # noqa: E402
from hsa2c.cluster.allocation import less_in_allocation  # noqa: E402
from hsa2c.cluster.world import find_world  # noqa: E402
from hsa2c.doctor.facts import Facts, gather, letters  # noqa: E402
from hsa2c.doctor.probe_output import sign, tell  # noqa: E402
from hsa2c.errors import HSA2CError  # noqa: E402
from hsa2c.node.lifetime import die_with_parent  # noqa: E402


def main(task: dict[str, Any]) -> None:
    """Look around on this host.

    Args:
        task: ``app``, ``config``, ``token`` (`hsa2c.doctor.facts.gather`), ``seconds`` of the trial, and ``nodes``: how
            many each rank's host is to have.
    """
    rank = find_world().rank
    die_with_parent(os.getppid())
    sign(rank, "started")
    app = application.load(task["app"])
    token = task["token"]
    run_dir, mine = Path(task["config"]["output"]["run_dir"]), f"{token or '.hsa2c-doctor'}-{rank}"
    seen = gather(run_dir, token, mine, app.preflight)
    try:
        config = app.build_config(task["config"])
        app.check(config)
    except Exception as error:
        facts = Facts(**seen, application_error=letters(error))
    else:
        nodes, own = task["nodes"][rank], task["own_processes"][rank]
        tried = _trial(app, config, nodes, own, task["seconds"], lambda stage: sign(rank, stage))
        facts = Facts(**seen, **tried)
    tell({"rank": rank, "facts": asdict(facts)})


def _trial(
    app: Application, config: Any, nodes: int, own_processes: int | None, seconds: float, sign: Callable[[str], None]
) -> dict[str, Any]:
    """The application at work here; the last of the facts."""
    found: dict[str, Any] = {}
    try:
        import torch

        found["torch_threads"] = torch.get_num_threads()
        torch.set_num_threads(1)
        found |= {"dim": app.dim(config), "state_size": app.layout(config).state_size}
        sign("loaded")
        if nodes:
            from hsa2c.doctor.trial import measure

            p = (
                own_processes
                or config.cluster.processes
                or share_of_cores(nodes, less=less_in_allocation(config.cluster))
            )
            config = application.at_node(app, config, p, nodes=nodes, cores=cores())
            found["trial"] = measure(app, config, min(nodes * p, share_of_cores(1)), seconds, sign)
    except HSA2CError as error:
        found["trial_error"] = letters(error)
    except Exception:
        found["trial_error"] = letters(traceback.format_exc())
    return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking torch apart in good order costs a second, and nobody sees it
