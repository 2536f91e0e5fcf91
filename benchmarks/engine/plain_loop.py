"""Run every line of ``commands.txt`` by ``sh -c``: what the stages cost without any engine."""

import subprocess
from pathlib import Path

for line in Path("commands.txt").read_text().splitlines():
    subprocess.run(["/bin/sh", "-c", line], check=True)
