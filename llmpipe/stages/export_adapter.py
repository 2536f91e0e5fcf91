"""Export a LoRA adapter to a GGUF file, which llama.cpp loads beside the GGUF of its base model.

    small: {kind: export, model: HuggingFaceTB/SmolLM2-135M-Instruct, quantize: q8_0}
    lora: {kind: export_adapter, adapter: sft}

One base then serves several adapters: ``llama-server -m q8_0.gguf --lora adapter.gguf``. The stage
proves the file: llama.cpp reads the unquantized base with the adapter on it, and must predict what
PEFT predicts. llama.cpp's own converter decides how each matrix lies in a GGUF. Refused, because
llama.cpp has no place for it: DoRA, ``modules_to_save``, trained tokens or biases, LoRA on the
embedding or on a head that is tied to it. Refused as well is an adapter that was trained on a
rounded base (QLoRA), because no GGUF has exactly these weights, and one that was trained with
another chat template or end token than its base's, by which llama.cpp would ask. A merge covers all
of them. The same adapter gives the same bytes. Needs the base twice in memory, and its size on disk
for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.base_model import load_base, put_adapter
from llmpipe.backends.huggingface.quantization import quantization_of
from llmpipe.backends.llama_cpp import converter
from llmpipe.backends.llama_cpp.adapter import (
    MERGE_INSTEAD,
    refuse_unsupported,
    scales_of,
    write_adapter,
)
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.contracts import (
    Artifact,
    EstimateContext,
    Estimates,
    Input,
    Needs,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.export_files import exact_type
from llmpipe.stages.merge import Trained, base_of, load_tokenizer_of
from llmpipe.stages.train_product import verify_adapter

PACKAGES = ("gguf", "peft", "safetensors", "torch", "transformers", "xllamacpp")


class ExportAdapterConfig(StageConfig, frozen=True, kw_only=True):
    """The adapter to export. The outputs are ``adapter``, one GGUF file, and ``parity``."""

    adapter: str
    """The adapter: a train stage that trained LoRA."""


class ExportAdapter(StageDefaults, Estimates):
    """LoRA adapter → GGUF adapter, and the comparison of both."""

    Config = ExportAdapterConfig
    VERSION = 2
    determinism = "same-machine"  # the file is byte-equal anywhere, the comparison is not
    reads_environment = True
    imports = ("torch", "transformers", "peft")

    @staticmethod
    def ports(config: ExportAdapterConfig) -> Ports:
        inputs = {"adapter": Input(("adapter",), config.adapter, ("adapter",))}
        outputs = {
            "adapter": Output("gguf_adapter", origin="adapter"),
            "parity": Output("metrics"),
        }
        return Ports(inputs, outputs, default="adapter")

    @staticmethod
    def fingerprint(config: ExportAdapterConfig) -> Mapping[str, Any]:
        return {**semantic_fields(config), "converter": converter.identity()}

    @staticmethod
    def tools(config: ExportAdapterConfig) -> tuple[str, ...]:
        return PACKAGES

    @staticmethod
    def needs(config: ExportAdapterConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return (*packages("numpy", *PACKAGES), converter.need())

    @staticmethod
    def estimate(
        config: ExportAdapterConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.model_estimates import export_adapter_estimate

        return export_adapter_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[ExportAdapterConfig]) -> StageResult:
        """Write the adapter, apply it to the base as GGUF, compare with PEFT."""
        adapter = ctx.input("adapter")
        base = base_of(adapter)
        _require_exportable(adapter, base)
        _require_same_chats(adapter, base)
        program = converter.find(ctx.tools)
        target, gguf = ctx.out / "adapter.gguf", ctx.work / "base.gguf"
        ctx.progress(0, 3, "reading the adapter on its base")
        with suppress_logs():
            trained, scales = _predict(base.path, adapter.path, adapter.label, ctx.threads)
        ctx.progress(1, 3, "writing")
        changed = write_adapter(
            adapter.path, base.path, target, scales,
            converter=program, work=ctx.work, threads=ctx.threads, label=adapter.label,
        )  # fmt: skip
        kind = exact_type(base.path)
        try:
            converter.convert(
                base.path, gguf, kind, converter=program, work=ctx.work, threads=ctx.threads
            )
            _require_tensors(changed, gguf, adapter.label)
            ctx.progress(2, 3, "comparing")
            metrics = _compare(trained, gguf, target, adapter.label, ctx.threads)
        finally:
            gguf.unlink(missing_ok=True)
        metrics |= {"tensors": len(changed), "bytes": target.stat().st_size, "base_type": kind}
        ctx.progress(3, 3)
        outputs = {"adapter": target, "parity": write_json(ctx.out / "parity.json", metrics)}
        return StageResult(outputs, metrics, _summary(metrics))


def _require_exportable(adapter: Artifact, base: Artifact) -> None:
    """Require an adapter that learned something, of a kind that llama.cpp can apply."""
    refuse_unsupported(adapter.path, base.path, adapter.label)
    verify_adapter(adapter.path)
    if quantization_of(adapter.path):
        raise StageError(
            f"{adapter.label} was trained on a base that bitsandbytes rounded; on the GGUF of any "
            "base it would be another model than the trained one",
            hint=f"{MERGE_INSTEAD}; the merge rounds the base first",
        )


def _require_same_chats(adapter: Artifact, base: Artifact) -> None:
    """Require the chat template and end token of the base, whose GGUF has no others."""
    from llmpipe.parity.adapter_chat import chat_changes

    changes = list(chat_changes(adapter.path, base.path))
    if changes:
        raise StageError(
            f"{adapter.label} cannot be a GGUF adapter: {'; '.join(changes)}; llama.cpp would ask "
            "with the template and the tokens of the base",
            hint=MERGE_INSTEAD,
        )


def _predict(
    base: Path, adapter: Path, label: str, threads: int
) -> tuple[Trained, dict[str, float]]:
    """Return what the adapter predicts on its base with PEFT, and the scales of its layers."""
    import torch

    from llmpipe.parity.merged import changed_tokens, comparison_rows, learned_kl, predictions

    torch.set_num_threads(threads)
    tuned = put_adapter(load_base(base, "auto", label), base, adapter, label)
    rows = comparison_rows(load_tokenizer_of(base, adapter), changed_tokens(tuned))
    predicted = predictions(tuned, rows)
    return Trained(rows, predicted, learned_kl(tuned, predicted, rows)), scales_of(tuned)


def _require_tensors(changed: Collection[str], gguf: Path, label: str) -> None:
    """Require that the base's GGUF has the tensors that the adapter changes."""
    from llmpipe.backends.llama_cpp.gguf_file import read_gguf

    missing = sorted(set(changed) - read_gguf(gguf)[1].keys())
    if missing:
        raise StageError(
            f"{label} cannot be a GGUF adapter: it changes {', '.join(missing)}, which the base's "
            "GGUF does not have, for example because the head is tied to the embedding",
            hint=MERGE_INSTEAD,
        )


def _compare(
    trained: Trained, gguf: Path, adapter: Path, label: str, threads: int
) -> dict[str, Any]:
    """Check that llama.cpp predicts the same as PEFT; return the metrics.

    Raises:
        StageError: It does not.
    """
    import numpy as np

    from llmpipe.backends.llama_cpp.logits import gguf_logits
    from llmpipe.parity.divergence import divergence
    from llmpipe.parity.predictions import LIMITS

    context = max(map(len, trained.rows)) + 1
    with gguf_logits(gguf, context=context, threads=threads, label=label, adapter=adapter) as score:
        # The last token has no successor; any other id stands for it.
        found = np.concatenate([score([*row, 0], 1) for row in trained.rows])
    apart = divergence(trained.predictions, found)
    limit = min(LIMITS[False].mean_kl, trained.learned_kl / 2)
    if not apart.mean_kl <= limit:  # NaN must fail, too
        raise StageError(
            f"{label} as GGUF is not the adapter that was trained: on {apart.tokens} tokens "
            f"llama.cpp predicts {apart.mean_kl:.2g} nats per token away from PEFT; rounding "
            f"explains {LIMITS[False].mean_kl:g}, and the adapter itself changes "
            f"{trained.learned_kl:.2g}",
            hint=MERGE_INSTEAD,
        )
    return {
        "compared_tokens": apart.tokens,
        "learned_kl": trained.learned_kl,
        "mean_kl": apart.mean_kl,
        "max_kl": apart.max_kl,
        "same_first": apart.same_first,
    }


def _summary(metrics: Mapping[str, Any]) -> str:
    return (
        f"{metrics['tensors']} tensors, {metrics['bytes'] / 1e6:.1f} MB; "
        f"{metrics['mean_kl']:.1e} nats per token from PEFT's predictions; the adapter changes "
        f"{metrics['learned_kl']:.2g}"
    )
