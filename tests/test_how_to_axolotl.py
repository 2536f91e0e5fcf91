"""The how-to of Axolotl files, followed as far as a CPU goes: its blocks are files and commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from init_command import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "bring-your-axolotl-file.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BIN = str(Path(sys.executable).parent)


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run commands of the page, without the hub."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    command = command.replace("llmpipe ", f"{sys.executable} -m llmpipe ")
    return subprocess.run(
        ["sh", "-ec", command], cwd=folder, capture_output=True, text=True, env=env
    )


def test_the_page_as_it_is_written(tmp_path: Path, tiny_llama: Path) -> None:
    """Check, spec, rows, two steps on the CPU, and the folder for two GPUs."""
    mine = re.search(r"^`mine.yml`:\n\n```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.search(r"^```json\n(.*?)\n(.*?)\n```", PAGE, re.MULTILINE)
    assert mine
    assert rows
    (tmp_path / "mine.yml").write_text(mine[1])
    for name, text, count in (("support", rows[1], 40), ("small-talk", rows[2], 20)):
        made = [json.loads(text.replace("1", str(i))) for i in range(count)]
        write_rows(tmp_path / f"{name}.jsonl", made)
    (tmp_path / "small").symlink_to(tiny_llama)
    check, make, look, attempt, compiled, judged = COMMANDS

    wrong = shell(tmp_path, check)
    assert wrong.returncode == 2
    (line,) = re.findall(r"^mine.yml:\d+.*", PAGE, re.MULTILINE)
    assert line in wrong.stderr.splitlines()
    assert wrong.stderr.count("mine.yml:") == 1

    done = shell(tmp_path, make)
    assert done.returncode == 0, done.stderr
    for said in (
        "llmpipe's own zero2 is used",
        "val_set_size: the same share",
        "output_dir: is left",
    ):
        assert said in done.stdout
    spec = yaml.safe_load((tmp_path / "spec.yaml").read_text())["stages"]
    assert spec["sft"]["axolotl"]["deepspeed"] == "zero2"
    assert spec["sft"]["launch"] == {"launcher": "accelerate"}

    for commands in (look, attempt):
        done = shell(tmp_path, commands)
        assert done.returncode == 0, done.stderr
    assert "⟦" in done.stdout

    done = shell(tmp_path, compiled)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((tmp_path / "support-gpu" / "axolotl.yml").read_text())
    kept = ("base_model", "deepspeed", "attn_implementation", "wandb_project", "load_in_4bit")
    assert [config[key] for key in kept] == [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "deepspeed/zero2.json",
        "flash_attention_2",
        "support",
        True,
    ]
    done = shell(tmp_path, judged)
    assert done.returncode == 0, done.stderr
    assert "axolotl.yml: valid for axolotl" in done.stderr
