"""Debian's Slurm as a peer: its controller and one node daemon on loopback, tuned for throughput
as its own guide says, in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "munged", "mungekey")
_PATIENCE = 60.0
_CONFIG = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmctldPort={controller}
SlurmdPort={node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
MaxArraySize=20001
MaxJobCount=200000
MinJobAge=10
MessageTimeout=60
SlurmctldDebug=error
SlurmdDebug=error
PriorityType=priority/basic
SchedulerType=sched/builtin
SchedulerParameters={scheduler}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={slots} RealMemory=1000 State=UNKNOWN
PartitionName=bench Nodes=n1 Default=YES MaxTime=INFINITE State=UP
"""
_SCHEDULER = ",".join(
    (
        "defer",
        "batch_sched_delay=1",
        "sched_interval=1",
        "default_queue_depth=10000",
        "sched_min_interval=500000",
        "max_rpc_cnt=150",
    )
)


def lacking() -> str:
    """Why there can be no Slurm here; empty where there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"{missing[0]} is not installed (Debian's packages slurm-wlm and munge)"
    return ""


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A running controller with one node."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def call(self, *command: str) -> str:
        """The output of one of its commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def array(self, jobs: int) -> float:
        """Seconds that one array of `true` takes, from the submit to the end of the last."""
        began = time.perf_counter()
        quiet = ["--output=/dev/null", "--mem=1", "--chdir=/", "--wrap=true"]
        self.call("sbatch", f"--array=1-{jobs}", *quiet)
        while self.call("squeue", "-h"):  # `sbatch --wait` looks every ten seconds
            time.sleep(0.2)
        return time.perf_counter() - began


@contextlib.contextmanager
def running(place: Path, slots: int) -> Iterator[Cluster]:
    """Slurm with `slots` CPUs on its one node, whatever this machine has."""
    host = socket.gethostname()
    for name in ("state", "spool", "munge"):
        (place / name).mkdir()
    place.chmod(0o755)  # munge refuses a socket that not everybody reaches
    config = place / "slurm.conf"
    ports = {"controller": _port(), "node": _port()}
    config.write_text(
        _CONFIG.format(host=host, place=place, slots=slots, scheduler=_SCHEDULER, **ports)
    )
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(config)}
    with contextlib.ExitStack() as stack:
        for command in _commands(place):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(_end, process)
            if command[0] == "munged":
                _until((place / "munge" / "socket").exists, "munged")
        cluster = Cluster(environment)
        _until(lambda: _is_idle(cluster), "Slurm")
        yield cluster


def _commands(place: Path) -> list[list[str]]:
    key = place / "munge" / "key"
    subprocess.run(["mungekey", "-c", "-k", str(key)], env={"PATH": _path()}, check=True)
    (place / "munge").chmod(0o755)
    munge = ["munged", "-F", "--num-threads", "10", f"--key-file={key}"]
    munge += [f"--{name}-file={place}/munge/{name}" for name in ("log", "pid", "seed")]
    munge.append(f"--socket={place}/munge/socket")
    return [munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"]]


def _is_idle(cluster: Cluster) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        return re.fullmatch(r"idle\W?", cluster.call("sinfo", "-h", "-o", "%t")) is not None
    return False


def _until(ready: Callable[[], bool], what: str) -> None:
    """Slurm tells nobody when it is ready: ask, until it is."""
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} does not start")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
