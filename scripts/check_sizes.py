"""Fail where a module is over 400 lines; print the ten longest."""

import subprocess
import sys
from pathlib import Path

LIMIT = 400

listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src", "scripts"],
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
sizes = sorted(
    ((len(Path(name).read_bytes().splitlines()), name) for name in listed if name.endswith(".py")),
    reverse=True,
)
for lines, name in sizes[:10]:
    print(f"{lines:5} {name}")
over = [name for lines, name in sizes if lines > LIMIT]
if over:
    sys.exit(f"over {LIMIT} lines: {', '.join(over)}")
