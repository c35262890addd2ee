"""Stand-ins for what vendors install: programs, and a library built here. For tests only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMI = """import os, sys
rows = {rows!r}
known = {known!r}
asked = [word.split("=", 1)[1] for word in sys.argv if word.startswith("--query-gpu=")]
if len(asked) != 1 or "--format=csv,noheader,nounits" not in sys.argv:
    sys.exit(2)
fields = asked[0].split(",")
for name in fields:
    if name not in known:
        print(f'Field "{{name}}" is not a valid field to query.')
        sys.exit(2)
for row in rows:
    print(", ".join(row[known.index(name)] for name in fields))
"""
SMI_FIELDS = (
    "index",
    "name",
    "memory.total",
    "uuid",
    "pci.bus_id",
    "driver_version",
    "compute_cap",
)

NVML = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { int index, slice; } device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct {
  char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32];
} pci;
static device whole[8], part[8];
static int is(const char *mode) {
  const char *wanted = getenv("FAKE_NVML");
  return wanted && !strcmp(wanted, mode);
}
int nvmlInitWithFlags(unsigned flags) {
  if (is("fail")) return 9;  /* the driver is not loaded */
  if (is("hang")) for (;;) pause();
  if (is("crash")) abort();
  return 0;
}
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = is("none") ? 0 : 2; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
  snprintf(text, size, "550.54.15"); return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device **out) {
  if (is("lost") && i == 0) return 15;
  whole[i].index = i; whole[i].slice = -1; *out = &whole[i]; return 0;
}
int nvmlDeviceGetName(device *d, char *text, unsigned size) {
  snprintf(text, size, "NVIDIA H100 80GB HBM3%s", d->slice < 0 ? "" : " MIG 3g.40gb");
  return 0;
}
int nvmlDeviceGetUUID(device *d, char *text, unsigned size) {
  snprintf(text, size, d->slice < 0 ? "GPU-%d" : "MIG-%d-%d", d->index, d->slice); return 0;
}
int nvmlDeviceGetMemoryInfo(device *d, memory *m) {
  m->total = (d->slice < 0 ? 80ULL : 40ULL) << 30; return 0;
}
int nvmlDeviceGetPciInfo_v3(device *d, pci *p) {
  snprintf(p->bus_id, 32, "00000000:%02X:00.0", 0x18 + d->index); return 0;
}
int nvmlDeviceGetMinorNumber(device *d, unsigned *n) { *n = d->index; return 0; }
int nvmlDeviceGetCudaComputeCapability(device *d, int *a, int *b) { *a = 9; *b = 0; return 0; }
int nvmlDeviceGetMigMode(device *d, unsigned *now, unsigned *later) {
  *now = *later = is("mig") && d->index == 0; return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned i, device **out) {
  if (i > 1) return 6;
  part[i].index = d->index; part[i].slice = i; *out = &part[i]; return 0;
}
int nvmlDeviceGetGpuInstanceId(device *d, unsigned *n) { *n = d->slice + 1; return 0; }
int nvmlDeviceGetComputeInstanceId(device *d, unsigned *n) { *n = 0; return 0; }
int nvmlDeviceGetTotalEccErrors(device *d, int kind, int counter, unsigned long long *n) {
  *n = is("sick") && d->index == 1 ? 3 : 0; return 0;
}
int nvmlDeviceGetCurrPcieLinkWidth(device *d, unsigned *n) {
  *n = is("narrow") && d->index == 0 ? 4 : 16; return 0;
}
int nvmlDeviceGetMaxPcieLinkWidth(device *d, unsigned *n) { *n = 16; return 0; }
"""
"""Its mode is `FAKE_NVML`; what it lacks, an old driver lacks too."""


def program(directory: Path, name: str, python: str) -> Path:
    """An executable that is this piece of Python."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!{sys.executable} -SE\n{python}")
    path.chmod(0o755)
    return path


def nvidia_smi(directory: Path, rows: list[tuple[str, ...]], known: tuple[str, ...]) -> Path:
    """Knows these fields; refuses everything else as the real one does."""
    return program(directory, "nvidia-smi", SMI.format(rows=rows, known=list(known)))


def printing(directory: Path, name: str, answers: dict[str, object]) -> Path:
    """Prints JSON by its arguments, and fails where it knows none."""
    text = f"import json, sys\nknown = json.loads({json.dumps(json.dumps(answers))})\n"
    text += "words = ' '.join(sys.argv[1:])\nsys.exit(2) if words not in known else None\n"
    return program(directory, name, text + "print(json.dumps(known[words]))\n")


def library(directory: Path) -> Path:
    """`libnvidia-ml.so.1` in a directory of its own; skips the test without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler, to build a stand-in for NVIDIA's library")
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "nvml.c"
    source.write_text(NVML)
    words = [compiler, "-shared", "-fPIC", "-o", directory / "libnvidia-ml.so.1", source]
    subprocess.run(words, check=True, capture_output=True)
    return directory
