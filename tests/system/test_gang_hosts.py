"""MPI and PyTorch on three hosts: a fleet file, then a task file, by the command alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.cli_harness import Command
from testbed.bed import Bed, bed_of

pytestmark = pytest.mark.root

FLEET = """\
type: fleet
name: lab
placement: cluster
ssh_config:
  identity_file: {key}
  host_key: accept-new
  hosts: [{hosts}]
"""
MPI = """\
type: task
name: hello
nodes: 3
fleets: [lab]
compat: [dstack]
startup_order: workers-first
stop_criteria: master-done
files: [hello.py]
commands:
  - |
    if [ $DSTACK_NODE_RANK = 0 ]; then
      mpirun -hostfile $DSTACK_MPI_HOSTFILE python3 $PWD/hello.py
    else
      exec sleep infinity
    fi
"""
HELLO = """\
import ctypes, platform
mpi = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
symbol = lambda name: ctypes.byref(ctypes.c_char.in_dll(mpi, name))
world, rank, size = symbol("ompi_mpi_comm_world"), ctypes.c_int(), ctypes.c_int()
mpi.MPI_Init(None, None)
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
mpi.MPI_Comm_size(world, ctypes.byref(size))
mine, total = ctypes.c_int(10 ** rank.value), ctypes.c_int()
mpi.MPI_Allreduce(
    ctypes.byref(mine), ctypes.byref(total), 1,
    symbol("ompi_mpi_int"), symbol("ompi_mpi_op_sum"), world,
)
print(f"rank {rank.value} of {size.value} on {platform.node()}: sum {total.value}", flush=True)
mpi.MPI_Finalize()
"""
TORCH = """\
type: task
name: reduce
nodes: 3
fleets: [lab]
files: [reduce.py]
env:
  RES_OPTIONS: timeout:1 attempts:1
commands:
  - {python} -m torch.distributed.run --nnodes=$MOORAGE_NODES --node-rank=$MOORAGE_RANK
    --nproc-per-node=1 --master-addr=$MOORAGE_MASTER_IP --master-port=29500 reduce.py
"""
"""Hosts of a bed have no name server, and PyTorch asks for the names of all that connect."""
REDUCE = """\
import platform
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
mine = torch.tensor([10 ** dist.get_rank()])
dist.all_reduce(mine)
print(f"rank {dist.get_rank()} of {dist.get_world_size()} on {platform.node()}: {mine.item()}")
dist.destroy_process_group()
"""
INTERPRETER = os.environ.get("MOORAGE_TEST_TORCH", sys.executable)
"""One that has PyTorch; it must be seen on the hosts, so not below this checkout or /tmp."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with bed_of(3) as made:
        yield made


@pytest.fixture(scope="module")
def moorage(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    place = tmp_path_factory.mktemp("fleet")
    command = Command(place / "home")
    hosts = ", ".join(f"{{hostname: {host.address}, user: root}}" for host in bed.hosts)
    (place / "fleet.yml").write_text(FLEET.format(key=bed.key, hosts=hosts))
    try:
        applied = command("apply", "-y", "-f", str(place / "fleet.yml"))
        assert applied.code == 0, applied.err
        yield command
        deleted = command("fleet", "delete", "lab", "-y")
        assert deleted.code == 0, deleted.err
    finally:
        command.end()


def apply(moorage: Command, directory: Path, task: str, name: str, program: str) -> list[str]:
    (directory / name).write_text(program)
    (directory / "task.yml").write_text(task)
    ran = moorage("apply", "-y", "-f", str(directory / "task.yml"), cwd=directory)
    assert ran.code == 0, ran.out + ran.err
    return ran.out.splitlines()


def test_ranks_know_their_hosts_and_reach_each_other(bed, moorage, tmp_path):
    task = tmp_path / "task.yml"
    task.write_text(
        "type: task\nname: names\nnodes: 3\nfleets: [lab]\nstop_criteria: master-done\n"
        "commands:\n  - '[ $MOORAGE_RANK = 0 ] || exec sleep infinity'\n"
        "  - echo $MOORAGE_MASTER_IP $MOORAGE_NODE_IPS\n"
        "  - for name in rank1 rank2 lab-0 lab-1 lab-2; do ssh $name hostname; done\n"
    )
    ran = moorage("apply", "-y", "-f", str(task))
    assert ran.code == 0, ran.out + ran.err
    mine = [line.removeprefix("[rank 0] ") for line in ran.out.splitlines()]
    master, *addresses = mine[0].split()
    by_address = {host.address: host for host in bed.hosts}
    assert master == addresses[0]
    assert sorted(addresses) == sorted(by_address)
    assert mine[1:3] == [by_address[place].name for place in addresses[1:]]
    assert mine[3:] == [host.name for host in bed.hosts]


@pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="Open MPI (openmpi-bin) is not installed here"
)
def test_mpirun_says_hello_from_every_host(bed, moorage, tmp_path):
    said = apply(moorage, tmp_path, MPI, "hello.py", HELLO)
    words = [line.split() for line in said]
    assert sorted(line[3] for line in words) == ["0", "1", "2"]
    assert sorted(line[7] for line in words) == sorted(f"{host.name}:" for host in bed.hosts)
    assert {line[-1] for line in words} == {"111"}


def lacks_torch() -> bool:
    look = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    return subprocess.run([INTERPRETER, "-c", look], check=False).returncode != 0


@pytest.mark.skipif(lacks_torch(), reason=f"{INTERPRETER} has no PyTorch; see MOORAGE_TEST_TORCH")
def test_torchrun_reduces_over_three_hosts(bed, moorage, tmp_path):
    task = TORCH.format(python=INTERPRETER)
    said = apply(moorage, tmp_path, task, "reduce.py", REDUCE)
    words = [line.split() for line in said if line.endswith(": 111")]
    assert sorted(line[1] for line in words) == ["0]", "1]", "2]"]
    assert all(line[1] == f"{line[3]}]" for line in words)
    assert sorted(line[-2] for line in words) == sorted(f"{host.name}:" for host in bed.hosts)
