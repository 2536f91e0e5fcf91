"""A spec made from an Axolotl file compiles to the same training; what does not is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from axolotl_files import HUB, LOCAL, TAIL, write_all
from init_command import compiled, init, refused, write_rows

import llmpipe
from llmpipe.backends.device import named_device
from llmpipe.cli.main import main
from llmpipe.stages.train_compile import compile_unseen
from llmpipe.stages.train_config import TrainConfig

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parent.parent.parent.parent

OURS = {"dataset_prepared_path", "output_dir", "plugins", "save_total_limit", "dataset_num_proc"}
"""Keys that do not shape the training, or are compared apart."""

ROWS = {"datasets", "test_datasets", "val_set_size", "base_model", "base_model_config"}

NORMALIZE = """
import json, sys
from pathlib import Path
from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault
from axolotl.cli.config import prepare_plugins

device = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90", "n_gpu": 1}
given, found = json.loads(Path(sys.argv[1]).read_text()), {}
for name, (folder, original, compiled) in given.items():
    made = []
    for document in (original, compiled):
        sys.path.insert(0, folder + "/plugins")
        document = DictDefault(document)
        prepare_plugins(document)
        made.append(validate_config(
            document, capabilities=device, env_capabilities={"torch_version": "2.13.0"}
        ).to_dict())
    found[name] = made
Path(sys.argv[2]).write_text(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def documents(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Each file and what its spec compiles to, both after Axolotl's own normalization."""
    folder = tmp_path_factory.mktemp("files")
    write_all(folder, tiny_llama)
    asked = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for i, (name, text) in enumerate({**LOCAL, **HUB}.items()):
            base = "org/base-model" if name in HUB else "./base"
            Path(f"mine{i}.yml").write_text(f"base_model: {base}\n{_unique(TAIL, text)}{text}")
            made = init("--from-axolotl", f"mine{i}.yml", "--file", f"spec{i}.yaml")
            assert made == 0, name
            original = yaml.safe_load(Path(f"mine{i}.yml").read_text())
            out = _compiled(i, here=name in LOCAL)
            asked[name] = (str(folder / f"out{i}"), original, out)
    return _normalized(asked, folder)


def _unique(tail: str, text: str) -> str:
    """Return the tail without the keys that the text sets."""
    own = yaml.safe_load(text)
    return "".join(line for line in tail.splitlines(True) if line.partition(":")[0] not in own)


def _compiled(i: int, *, here: bool) -> dict[str, Any]:
    """Return what `compile` writes for a GPU; where the rows are on the hub, what it would."""
    pipe = llmpipe.load(f"spec{i}.yaml")
    *before, stage = pipe.graph.nodes.values()
    if here:
        for node in before:
            pipe.run(only=[node.id])
        pipe.compile(stage.id, f"out{i}", device="cuda", base_model="copy")
        found = yaml.safe_load(Path(f"out{i}/axolotl.yml").read_text())
    else:
        config: Any = stage.config
        found = compile_unseen(config, None, named_device("cuda"))[0].config
        found["plugins"] = []
    return dict(found)


def _normalized(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    given, found = folder / "given.json", folder / "found.json"
    given.write_text(json.dumps(asked))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", NORMALIZE, str(given), str(found)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads(found.read_text())
    return made


@pytest.mark.parametrize("name", [*LOCAL, *HUB])
def test_it_compiles_to_the_same_training(documents: dict[str, Any], name: str) -> None:
    """Every key is as in the file, but for rows and output; rows keep their type and settings."""
    original, made = documents[name]
    unlike = {
        key: (original.get(key), made.get(key))
        for key in {**original, **made}
        if key not in OURS | ROWS and original.get(key) != made.get(key)
    }
    assert unlike == {}
