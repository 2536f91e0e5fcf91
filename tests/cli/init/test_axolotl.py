"""A spec made from an Axolotl file compiles to the same training; what does not is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from axolotl_files import HUB, LOCAL, TAIL, turns, write_all
from init_command import compiled, init, refused, write_rows

import llmpipe
from llmpipe.backends.axolotl.config import OWN_PLUGINS
from llmpipe.backends.device import named_device
from llmpipe.stages.train_compile import compile_unseen

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent.parent.parent

OURS = {"dataset_prepared_path", "output_dir", "plugins", "dataset_num_proc"}
"""Keys that do not shape the training, or are compared apart."""

ADDED = {
    "seed": (None, 42),  # without a seed, the order of the rows is random
    "logging_steps": (None, 1),
    "save_strategy": (None, "epoch"),  # as Axolotl does without it
    "chat_template": (None, "chatml"),  # from the entry of the rows
    "eval_strategy": (None, "epoch"),  # a note says so
}
"""Keys that a file need not have and llmpipe sets."""

FILES = {"deepspeed", "chat_template_jinja"}
"""Keys that name a copy in the compiled folder."""

ROWS = {"datasets", "test_datasets", "val_set_size", "base_model", "base_model_config"}

SETTINGS = {
    *("type", "roles_to_train", "train_on_eos", "roles", "field_chosen", "field_rejected"),
    *("chat_template", "system_prompt"),
}
"""Keys of an entry that say how rows are trained on."""

NORMALIZE = """
import json, os, sys
from pathlib import Path
from axolotl.cli.config import prepare_plugins
from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault

device = {"bf16": True, "fp8": True, "tf32": True, "compute_capability": "sm_90", "n_gpu": 1}

def normalized(document, folder):
    sys.path.insert(0, folder + "/plugins")
    document = DictDefault(document)
    prepare_plugins(document)
    versions = {"torch_version": "2.13.0"}
    made = validate_config(document, capabilities=device, env_capabilities=versions)
    return json.dumps(made.to_dict(), default=str)

normalized({"base_model": "x", "datasets": [{"path": "x", "type": "alpaca"}], "micro_batch_size": 1,
            "gradient_accumulation_steps": 1, "learning_rate": 1e-4, "adapter": "lora"}, "x")
given, found = json.loads(Path(sys.argv[1]).read_text()), {}
for name, (folder, *documents) in given.items():
    found[name] = []
    for document in documents:
        out = Path(sys.argv[2] + ".one")
        if os.fork() == 0:  # a plugin stays in the process that registered it
            out.write_text(normalized(document, folder))
            os._exit(0)
        assert os.wait()[1] == 0, name
        found[name].append(json.loads(out.read_text()))
Path(sys.argv[2]).write_text(json.dumps(found))
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
            Path(f"mine{i}.yml").write_text(f"base_model: {base}\n{unique(TAIL, text)}{text}")
            made = init("--from-axolotl", f"mine{i}.yml", "--file", f"spec{i}.yaml")
            assert made == 0, name
            original = yaml.safe_load(Path(f"mine{i}.yml").read_text())
            out = _compiled(i, here=name in LOCAL)
            asked[name] = (str(folder / f"out{i}"), original, out)
    return _normalized(asked, folder)


def unique(tail: str, text: str) -> str:
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
        assert found["plugins"][: len(OWN_PLUGINS)] == [*OWN_PLUGINS]
    else:
        config: Any = stage.config
        found = compile_unseen(config, None, named_device("cuda"))[0].config
    found["plugins"] = found["plugins"][len(OWN_PLUGINS) :]  # `compile` has asked Axolotl with them
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
    assert {key for key, values in unlike.items() if values != ADDED.get(key)} <= FILES
    assert (made.get("plugins") or []) == (original.get("plugins") or [])
    assert made["val_set_size"] == 0


def test_files_are_copied(documents: dict[str, Any], tmp_path_factory: Any) -> None:
    """A DeepSpeed configuration and a template are in the folder, as the file names them."""
    folder = tmp_path_factory.getbasetemp() / "files0"
    for name, key, text in (
        ("deepspeed", "deepspeed", (folder / "cfg" / "zero2.json").read_text()),
        ("a template of one's own", "chat_template_jinja", "{{ messages[0].content }}"),
    ):
        out = folder / f"out{[*LOCAL].index(name)}"
        assert (out / documents[name][1][key]).read_text() == text
    theirs = documents["deepspeed that lies in Axolotl's repository"][1]["deepspeed"]
    assert theirs == "deepspeed/zero3-offload.json"


def trained_as(document: dict[str, Any]) -> dict[str, Any]:
    """Return the first entry with the template that it trains on.

    Axolotl puts the document's own template into the tokenizer, which is then an entry's default.
    """
    entry: dict[str, Any] = document["datasets"][0]
    if entry.get("chat_template") == "tokenizer_default" and document.get("chat_template"):
        return {**entry, "chat_template": document["chat_template"]}
    return entry


def test_rows_keep_their_type_and_settings(documents: dict[str, Any]) -> None:
    """An entry of ``datasets`` differs in its place and in the names of columns only."""
    for name in (*LOCAL, *HUB):
        original, made = documents[name]
        first, own = trained_as(original), trained_as(made)
        kept = {key: value for key, value in first.items() if key in SETTINGS and value}
        assert {key: own.get(key) for key in kept} == kept, name


def test_all_rows_arrive(documents: dict[str, Any], tmp_path_factory: Any) -> None:
    """Of several files and shards, with their columns as they were, and some of them held out."""
    names, folder = [*LOCAL], tmp_path_factory.getbasetemp() / "files0"
    assert documents

    def rows(name: str, part: str = "train") -> list[dict[str, Any]]:
        path = folder / f"out{names.index(name)}" / "data" / f"{part}.parquet"
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found

    two = "two data sets, one of them in shards"
    assert len(rows(two)) + len(rows(two, "eval")) == 40 + 20
    assert len(rows("alpaca")) + len(rows("alpaca", "eval")) == 40
    assert rows("alpaca")[0].keys() >= {"instruction", "input", "output"}
    assert all(row["input"].startswith("word") for row in rows("alpaca"))
    own = "a prompt of one's own"
    assert (len(rows(own)), len(rows(own, "eval"))) == (36, 4)
    assert rows("kto")[0] == {"prompt": "p0", "completion": "c", "label": True}
    assert json.loads(rows("turns with other keys")[0]["messages"])[0]["content"] == "What is 0?"
    assert len(rows("test data sets", "eval")) == 40


def write(folder: Path, text: str, base: str = "org/base-model") -> Path:
    """Write an Axolotl file and the rows that it names."""
    write_rows(folder / "chat.jsonl", [{"messages": turns("q", "a")}] * 3)
    marked = [{**turn, "weight": 0} for turn in turns("q", "a")]
    write_rows(folder / "marked.jsonl", [{"messages": marked}])
    file = folder / "mine.yml"
    file.write_text(f"base_model: {base}\n{unique(TAIL, text)}{text}")
    return file


CHAT = "datasets: [{path: chat.jsonl, type: chat_template}]\n"


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("pretraining_dataset: [{path: org/rows}]\nmax_steps: 5\n", "pretraining_", "streams none"),
        (CHAT + "processor_type: AutoProcessor\n", "processor_type", "text only"),
        (CHAT + "rl: gdpo\n", "rl", "gdpo is not supported"),
        (
            "datasets: [{path: chat.jsonl, type: chat_template}, {path: org/r, type: alpaca}]\n",
            "datasets.1.type",
            "type: alpaca differs from that of the first data set (chat_template)",
        ),
        ("datasets: [{path: gone.jsonl, type: alpaca}]\n", "datasets.0.path", "no such file"),
        ("datasets: [{path: s3://b/a.jsonl, type: alpaca}]\n", "datasets.0.path", "reads no rows"),
        ("datasets: [{path: rows, type: alpaca}]\n", "datasets.0.path", "not written as org/name"),
        (
            "datasets: [{path: org/r, type: alpaca, split: 'train[10%:]'}]\n",
            "datasets.0.split",
            "takes no part",
        ),
        (
            "datasets: [{path: org/r, type: alpaca, shards: 4}]\n",
            "datasets.0.shards",
            "not supported for data sets of the hub",
        ),
        (CHAT + "deepspeed: my.json\n", "deepspeed", "no such file or folder: my.json"),
        (CHAT + "optimizer: adamwx\n", "optimizer", "unknown optimizer 'adamwx'"),
        (CHAT + "trl: {reward_funcs: [rewards.f]}\nrl: grpo\n", "trl.reward_funcs.0", "no file"),
        (
            CHAT + "trl: {reward_funcs: [org/a, org/b], reward_weights: [1.0]}\nrl: grpo\n",
            "trl.reward_weights",
            "holds 1 weights for 2 functions",
        ),
        (CHAT + "resume_from_checkpoint: ./c\n", "resume_from_checkpoint", "no such folder: ./c"),
        (
            "datasets: [{path: marked.jsonl, type: chat_template}]\n",
            "datasets.0",
            "marked.jsonl:1: a turn has 'weight', which Axolotl does not read here",
        ),
    ],
)
def test_what_cannot_be_carried_over(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, where: str, why: str
) -> None:
    """It is named with its line and the reason, and nothing is written."""
    write(folder, text)
    said = refused(capsys, "--from-axolotl", "mine.yml")
    assert "mine.yml:" in said
    assert where in said
    assert why in said
    assert "Traceback" not in said


def test_what_is_replaced_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal and in the spec: keys that Axolotl drops, secrets, places of the result."""
    write(folder, CHAT + "lora_rank: 8\ncomet_api_key: s3cret\ndataset_prepared_path: prepared\n")
    assert init("--from-axolotl", "mine.yml") == 0
    out, text = capsys.readouterr().out, Path("spec.yaml").read_text("utf-8")
    for said in (
        "lora_rank: is left out: Axolotl drops it (unknown key 'lora_rank')",
        "comet_api_key: is left out, as a secret: set COMET_API_KEY in the environment",
        "output_dir: is left out",
        "dataset_prepared_path: is left out",
    ):
        assert said in out
        assert said in text
    assert "s3cret" not in out + text
    block: Any = compiled().nodes["sft"].config.axolotl  # type: ignore[attr-defined]
    assert block.keys().isdisjoint({"lora_rank", "comet_api_key", "output_dir"})
    assert (block["sequence_len"], block["learning_rate"]) == (None, 2e-5)


def test_a_checkpoint_is_continued_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Axolotl would; and one process trains, which the file does not say."""
    (folder / "old" / "checkpoint-3").mkdir(parents=True)
    write(folder, CHAT + "resume_from_checkpoint: old/checkpoint-3\n")
    assert init("--from-axolotl", "mine.yml") == 0
    stage: Any = compiled().nodes["sft"].config
    assert stage.continue_from == "./old/checkpoint-3"
    assert "`axolotl train` starts one for each GPU" in capsys.readouterr().out


def test_data_sets_that_agree_are_joined(folder: Path) -> None:
    """Also where one has other columns: format then names the key of all of them."""
    text = """\
datasets:
  - {path: chat.jsonl, type: chat_template, message_field_training: train}
  - {path: other.jsonl, type: chat_template, message_field_training: train, field_messages: talk}
"""
    write(folder, text)
    write_rows(folder / "other.jsonl", [{"talk": turns("q", "a")}])
    assert init("--from-axolotl", "mine.yml") == 0
    stage: Any = compiled().nodes["sft"].config
    assert stage.dataset == {"type": "chat_template", "message_field_training": "weight"}


def test_rewards_and_types_of_ones_own(folder: Path) -> None:
    """Reward functions become inputs; the module of a row's type is found where it lies."""
    text = """\
rl: grpo
datasets: [{path: org/rows, type: mine.transform}]
trl: {num_generations: 4, max_completion_length: 64, reward_funcs: [rewards.right, org/judge],
      reward_weights: [1.0, 0.5]}
"""
    (folder / "rewards.py").write_text("def right(completions, **kwargs):\n    return []\n")
    (folder / "mine.py").write_text("def transform(cfg, **kwargs): ...\n")
    write(folder, text)
    assert init("--from-axolotl", "mine.yml") == 0
    stage: Any = compiled().nodes["grpo"].config
    rewards = [(r.file, r.function, r.model, r.weight) for r in stage.rewards]
    assert rewards == [("./rewards.py", "right", None, 1.0), (None, None, "org/judge", 0.5)]
    assert stage.axolotl["trl"] == {"num_generations": 4, "max_completion_length": 64}
    assert stage.launch.env == {"PYTHONPATH": str(folder)}


def test_paths_are_relative_to_the_spec(folder: Path) -> None:
    """The file may lie elsewhere: its paths start there, or where we stand."""
    (folder / "there").mkdir()
    (folder / "there" / "base").mkdir()
    (folder / "there" / "base" / "config.json").write_text("{}")
    write(folder / "there", CHAT + "revision_of_model: abc\n", base="./base")
    assert init("specs", "--from-axolotl", "there/mine.yml") == 0
    stage: Any = compiled("specs/spec.yaml").nodes["sft"].config
    assert (stage.base_model, stage.data) == ("../there/base", "../there/chat.jsonl")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from-axolotl", "gone.yml"], "gone.yml"),
        (["--from-axolotl", "mine.yml", "--goal", "teach"], "--goal has no effect"),
        (["--from-axolotl", "chats.jsonl"], "chats.jsonl"),
    ],
)
def test_options_that_cannot_be(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """A file that is not there or no Axolotl file, and what the file itself says."""
    write(folder, CHAT)
    assert said in refused(capsys, *arguments)
