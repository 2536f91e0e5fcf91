"""Make a folder that another server runs: Ollama a GGUF, vLLM a model or an adapter.

    small: {kind: bundle, server: ollama, model: gguf.q4_k_m}
    fast:  {kind: bundle, server: vllm, model: merged}
    lora:  {kind: bundle, server: vllm, model: sft}

``llmpipe get SPEC STAGE FOLDER`` copies it. For Ollama: the GGUF and a ``Modelfile`` whose template
renders every golden chat as the model's own template does; a chat template for which this cannot
be proven is refused (see `llmpipe.parity.ollama`). For vLLM: the model's folder, loaded once to see
that it is complete, and ``serve.sh`` with the command line; an adapter comes with its base. vLLM's
reader of GGUF files is not used. Neither server runs here: what is checked is what they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from llmpipe.contracts import (
    FieldPath,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
)
from llmpipe.needs import Given, Need, packages

OLLAMA_ONLY = ("adapter", "system", "allow_trimmed")
GGUF_FOR_VLLM = (
    "vLLM's reader of GGUF files is not used: name the model or adapter before its export"
)
FOLDER_FOR_OLLAMA = "Ollama gets a GGUF: name an output of an export stage, such as gguf.q4_k_m"


class BundleConfig(StageConfig, frozen=True, kw_only=True):
    """The server, and what it is to serve. The output is ``folder``."""

    server: Literal["ollama", "vllm"]
    """The server that the folder is for."""
    model: str
    """What is served: a GGUF for Ollama; a model, or an adapter with its base, for vLLM."""
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "model"
    """The name of the model for callers."""
    context: Annotated[int, Meta(ge=16)] | None = None
    """Maximum tokens of one conversation. By default all that the model has; for Ollama at most
    8192, because it reserves the memory."""
    adapter: str | None = None
    """For Ollama: an adapter for this model, the output of an export_adapter stage."""
    system: str = ""
    """For Ollama: the system message of chats that have none."""
    allow_trimmed: bool = False
    """For Ollama: accept a chat template that removes spaces and line breaks around messages, which
    Ollama's cannot. Messages with such a border are then rendered differently."""


class Bundle(StageDefaults):
    """The stage kind ``bundle``."""

    Config = BundleConfig
    VERSION = 2
    determinism = "same-machine"

    @staticmethod
    def ports(config: BundleConfig) -> Ports:
        """Take what the server reads; an adapter for vLLM stays one."""
        if config.server == "ollama":
            refuse = dict.fromkeys(("model", "adapter"), FOLDER_FOR_OLLAMA)
            inputs = {"model": Input(("model",), config.model, ("gguf",), refuse=refuse)}
            if config.adapter is not None:
                inputs["adapter"] = Input(
                    ("adapter",), config.adapter, ("gguf_adapter",), adapts="model"
                )
        else:
            refuse = {"gguf": GGUF_FOR_VLLM}
            accepts = Input(("model",), config.model, ("model", "adapter"), refuse=refuse)
            inputs = {"model": accepts}
        return Ports(inputs, {"folder": Output("file", origin="model")}, default="folder")

    @staticmethod
    def problems(config: BundleConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        if config.server != "ollama":
            found = [((key,), "is for ollama only") for key in OLLAMA_ONLY if getattr(config, key)]
        if '"""' in config.system:
            found.append((("system",), "a Modelfile cannot hold three quotes in a row"))
        return found

    @staticmethod
    def fingerprint(config: BundleConfig) -> Mapping[str, Any]:
        return semantic_fields(config)

    @staticmethod
    def tools(config: BundleConfig) -> tuple[str, ...]:
        return ("xllamacpp",) if config.server == "ollama" else ("torch", "transformers")

    @staticmethod
    def needs(config: BundleConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        names = ("gguf", "numpy") if config.server == "ollama" else ("safetensors",)
        return packages(*names, *Bundle.tools(config))

    @staticmethod
    def run(ctx: StageContext[BundleConfig]) -> StageResult:
        """Write the folder and check it."""
        if ctx.config.server == "ollama":
            from llmpipe.stages.bundle_ollama import write_folder
        else:
            from llmpipe.stages.bundle_vllm import write_folder
        folder = ctx.out / "folder"
        folder.mkdir()
        metrics = write_folder(ctx, folder, ctx.config.name)
        return StageResult({"folder": folder}, metrics, str(metrics["command"]))
