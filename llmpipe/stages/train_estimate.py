"""What a training takes before it runs: `llmpipe.estimate` asked about what Axolotl would run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmpipe.backends.axolotl.check import installed_version
from llmpipe.backends.device import Device
from llmpipe.contracts import EstimateContext, Hardware, Needs
from llmpipe.errors import StageError
from llmpipe.estimate.asking import ask
from llmpipe.estimate.bounds import is_sharded, least_of, lower_bound, surely_within
from llmpipe.estimate.fitting import changes_that_fit, gist, largest_micro_batch
from llmpipe.estimate.gguf_header import shape_of
from llmpipe.estimate.memory import Memory, memory_of
from llmpipe.estimate.model_config import ModelConfig, find_config
from llmpipe.needs import Given
from llmpipe.stages.train_compile import compile_unseen
from llmpipe.stages.train_config import TrainConfig, made
from llmpipe.stages.train_review import file_of

_PROCESSES = re.compile(r"--(?:nproc|num)[_-](?:per[_-]node|processes)[ =](\d{1,6}|\w+)")
"""The option of torchrun or accelerate for the number of processes."""

BYTES_ON_THE_HUB = 2
"""Of a parameter, as most models are published: bfloat16."""


def estimate(config: TrainConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
    """Return what a training takes of each GPU, or of main memory where it trains on the CPU."""
    base = inputs["base_model"]
    hardware = _used(config, asked.hardware)
    device = Device(hardware.kind, hardware.dtype if hardware.kind == "cuda" else "float32")
    try:
        compiled, _ = compile_unseen(config, file_of(config, base.folder), device)
    except StageError as error:
        return Needs(notes=(f"memory is not known: {error.message}",))
    model = find_config(base, online=asked.online)
    if model.missing:
        return Needs(notes=(f"memory is not known: {model.missing}",))
    if installed_version() is None:
        return Needs(notes=("memory is not known: Axolotl is not installed",))
    question = _Question(compiled.config, model, hardware, asked)
    if asked.depth == "gate" and (plain := question.plainly()):
        return plain
    answer = question.ask(compiled.config)
    if answer is None:
        return Needs()
    if "error" in answer:
        return Needs(notes=(f"memory is not known: {answer['error']}",))
    return _needs(question, memory_of(answer, compiled.config, hardware), made(config))


@dataclass(frozen=True, slots=True)
class _Question:
    """One training on one machine."""

    document: Mapping[str, Any]
    model: ModelConfig
    hardware: Hardware
    asked: EstimateContext

    def plainly(self) -> Needs | None:
        """Return the answer where rough bounds show already whether it fits."""
        limit, gguf = self.hardware.limit, self.model.gguf
        shape = self.model.content if gguf is None else shape_of(gguf)
        if limit is None:
            return Needs()
        if shape is None:
            return None
        least = lower_bound(shape, self.document)
        if least > limit:
            return Needs(gpu_memory=least) if self.hardware.kind == "cuda" else Needs(memory=least)
        return Needs() if surely_within(shape, self.document, limit) else None

    def ask(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a step of the document holds."""
        return ask(
            document,
            self.model,
            cuda=self.hardware.kind == "cuda",
            memo=self.asked.memo,
            quick=self.asked.depth == "known",
        )

    def measure(self, document: Mapping[str, Any]) -> Memory | None:
        """Return the memory of a changed document."""
        answer = self.ask(document)
        if answer is None or "error" in answer:
            return None
        return memory_of(answer, document, self.hardware)


def _needs(question: _Question, memory: Memory, product: str) -> Needs:
    limit, on_gpu = question.hardware.limit, question.hardware.kind == "cuda"
    absent = BYTES_ON_THE_HUB * memory.parameters if question.model.absent else None
    needs = Needs(
        memory=memory.host if on_gpu else memory.total,
        gpu_memory=memory.total if on_gpu else None,
        disk=memory.product(product),
        download=absent,
        parts=memory.parts,
        notes=(*memory.notes, *_unused(question.hardware.gpus, question.asked.hardware.gpus)),
    )
    if limit is None or question.asked.depth != "full":
        return needs
    document, parameters = question.document, memory.parameters
    hopeless = not is_sharded(document) and least_of(document) * parameters > limit
    largest = 0 if hopeless else largest_micro_batch(document, question.measure, limit)
    if memory.total <= limit:
        return replace(needs, micro_batch=largest)
    found = list(changes_that_fit(document, question.measure, limit, parameters))
    if not found:
        found = [gist(parameters, limit)]
    return replace(needs, micro_batch=largest, changes=tuple(found))


def _unused(used: int, there: int) -> Iterator[str]:
    """Yield a note on GPUs that the launcher leaves idle."""
    if used < there:
        launch = f"launch: {{launcher: torchrun, args: [--nproc_per_node={there}]}}"
        yield f"the stage's launcher uses {used} of {there} GPUs; {launch} uses all"


def _used(config: TrainConfig, hardware: Hardware) -> Hardware:
    """Return the part of the hardware that the launcher uses: each process has a GPU."""
    if hardware.kind == "cpu":
        return hardware
    launcher = config.launch.launcher
    many = hardware.gpus if launcher == "accelerate" else 1  # what each starts by itself
    named = _PROCESSES.search(" ".join(config.launch.args)) if launcher != "python" else None
    if named:
        many = int(named[1]) if named[1].isdecimal() else hardware.gpus
    return replace(hardware, gpus=many)
