"""The tests' SLURM from Python: what it did, and what may happen to it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
ACCOUNT, PARTITION, GPU_PARTITION = "lab", "cpu", "gpu"
PATIENCE = 180.0  # seconds until something must have happened, on a machine with much else to do
# Seconds after which slurmctld has written down what has changed (5 at most). Killed sooner and started again, it
# starts jobs that run a second time, and drains their nodes, which refuse that ("Duplicate jobid").
STATE_SAVED = 8.0
FIELDS = "JobIDRaw,Comment,Account,Partition,ReqMem,TimelimitRaw,ReqTRES,State,NodeList"


class CannotStart(RuntimeError):
    """Why there is no cluster here."""


@dataclass(frozen=True)
class Job:
    """A run of a job as accounting has it; one that SLURM has started anew has several."""

    id: int
    comment: str  # rule and wildcards, as the executor plugin spells them
    account: str
    partition: str
    megabytes: int
    minutes: int
    cpus: int
    gpus: int
    state: str
    node: str

    @property
    def has_failed(self) -> bool:
        return self.state not in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED")

    @property
    def rule(self) -> str:
        return self.comment.removeprefix("rule_").partition("_wildcards_")[0]

    @property
    def wildcards(self) -> list[str]:
        """Values of its wildcards, none of which holds an underscore."""
        return self.comment.partition("_wildcards_")[2].split("_")


def wait_until(condition: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    """Wait for a condition to become true, and fail with what it was when it does not."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"{patience:.0f} s went by without {what}"
        time.sleep(0.2)


class Cluster:
    """A cluster in a folder, used by processes that have its `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def start(self) -> Cluster:
        """Bring up the daemons that do not run."""
        done = subprocess.run(
            ["bash", SCRIPT, "start", self.folder], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CannotStart(done.stderr.strip())
        return self

    def stop(self) -> None:
        subprocess.run(["bash", SCRIPT, "stop", self.folder], check=True)

    def ask(self, *command: object, check: bool = True) -> str:
        """Run a command of SLURM, and return what it prints."""
        return subprocess.run(
            list(map(str, command)),
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=check,
            timeout=PATIENCE,
        ).stdout

    def jobs(self, folder: Path) -> list[Job]:
        """Jobs that were submitted from a folder, in the order in which they were, from accounting."""
        command = [
            "sacct",
            "--allocations",
            "--duplicates",
            "--noheader",
            "--parsable2",
            "--starttime",
            "now-1days",
        ]
        lines = self.ask(*command, f"--format={FIELDS},WorkDir").splitlines()
        rows = [line.split("|") for line in lines]
        comments = self._comments()
        jobs = [_job(row[:-1], comments) for row in rows if row[-1] == str(folder)]
        return sorted(jobs, key=lambda job: job.id)

    def _comments(self) -> dict[str, str]:
        """Comments by job, which accounting is told only when a job ends."""
        lines = self.ask("squeue", "--noheader", "--states", "all", "--format", "%A|%k").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def cancel(self, job: Job) -> None:
        self.ask("scancel", job.id)

    def end_its_time(self, job: Job) -> None:
        """Let the time limit of a job end now; none can be shorter than a minute."""
        self.ask("scontrol", "update", f"JobId={job.id}", "EndTime=now+1")

    def start_now(self, jobs: list[Job]) -> None:
        """Start jobs of a node that died, which SLURM otherwise lets wait for two minutes."""
        for job in jobs:
            self.ask("scontrol", "update", f"JobId={job.id}", "StartTime=now")

    def kill_daemon(self, name: str) -> None:
        """Kill `slurmctld`, or the slurmd of `node1` or `node2`: the jobs run on."""
        if name == "slurmctld":
            time.sleep(STATE_SAVED)
        os.kill(int((self.folder / f"run/{name}.pid").read_text()), signal.SIGKILL)

    def kill_node(self, node: str) -> None:
        """Let a node die: its daemon, and all that runs on it."""
        ids = self.ask(
            "squeue", "--noheader", "--nodelist", node, "--states", "running", "--format", "%A"
        ).split()
        self.kill_daemon(node)
        for process in _processes_of(self, set(ids)):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:  # it has ended with another one
                pass

    def clear(self) -> None:
        """End all jobs, and bring up what was killed."""
        self.start()
        self.ask("scancel", "--user", "root")
        wait_until(lambda: not self.ask("squeue", "--noheader"), "an end of the jobs that were cancelled")


def _job(row: list[str], comments: dict[str, str]) -> Job:
    number, comment, account, partition, memory, minutes, tres, state, node = row
    wanted = dict(one.split("=") for one in tres.split(","))
    megabytes = float(memory.rstrip("MG")) * (1024 if memory.endswith("G") else 1)
    return Job(
        id=int(number),
        comment=comment or comments.get(number, ""),
        account=account,
        partition=partition,
        megabytes=round(megabytes),
        minutes=int(minutes),
        cpus=int(wanted["cpu"]),
        gpus=int(wanted.get("gres/gpu", 0)),
        state=state.split()[0],  # CANCELLED by whom
        node=node,
    )


def _processes_of(cluster: Cluster, jobs: set[str]) -> list[int]:
    """Processes of jobs of this cluster: their commands know it from the environment, SLURM's own from their title."""
    found = []
    conf = f"SLURM_CONF={cluster.environment['SLURM_CONF']}"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        of_jobs = any(f"SLURM_JOB_ID={job}" in environment for job in jobs)
        of_slurm = title.startswith("slurmstepd") and any(f"[{job}." in title for job in jobs)
        if conf in environment and (of_jobs or of_slurm):
            found.append(int(folder.name))
    return found
