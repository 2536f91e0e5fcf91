"""Merge an adapter into its base model, and check that the result predicts like the trained model.

PEFT computes the sum on the CPU (`llmpipe.backends.huggingface.adapter_merge`), on the weights that
the adapter was trained on: after QLoRA, those rounded by bitsandbytes. The merged folder is then
loaded as any user would load it, and its predictions are compared with those of the adapter on its
base: on golden texts and, if there are ``rows``, on some of those. Tokenizer and generation
settings are copied from the adapter and the base.

Memory holds one copy of the model in the number format of the base, its embeddings and one block in
float32, and the predictions of about 500 tokens, twice as many with ``rows``. Not covered: adapters
of reward models, and pickled weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.axolotl.needs import rounding_packages
from llmpipe.backends.huggingface.base_model import (
    load_base,
    put_adapter,
    read_adapter_config,
    stored_dtype,
)
from llmpipe.backends.huggingface.quantization import (
    QUANTIZATION_CONFIG,
    describe,
    quantization_of,
    unrecorded_hint,
)
from llmpipe.backends.huggingface.tensors import look, tensor_shapes, weight_files
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
from llmpipe.stages.train_product import TOKENIZER_FILES, differing, verify_adapter

if TYPE_CHECKING:
    from llmpipe.formats import Conversation, Text

HELD_OUT_ROWS = 6
"""How many held-out rows are compared: their predictions take memory."""


class MergeConfig(StageConfig, frozen=True, kw_only=True):
    """The adapter to merge. The output is ``model``."""

    adapter: str
    """The adapter: a stage that trained one, or a PEFT folder. An adapter that was trained on a
    rounded base (QLoRA) holds a quantization_config.json and is merged into the rounded weights."""
    rows: str | None = None
    """Held-out rows, such as ``dataset.eval``, on which the merged model is compared with the
    trained one, too: the first tokens of a few of them. Name no rows that it was trained on."""


class Merge(StageDefaults, Estimates):
    """The stage kind ``merge``."""

    Config = MergeConfig
    VERSION = 3
    determinism = "same-machine"
    imports = ("torch", "transformers", "peft")

    @staticmethod
    def ports(config: MergeConfig) -> Ports:
        inputs = {"adapter": Input(("adapter",), config.adapter, ("adapter",))}
        if config.rows is not None:
            inputs["rows"] = Input(("rows",), config.rows, ("dataset", "records"))
        return Ports(inputs, {"model": Output("model", origin="adapter")}, default="model")

    @staticmethod
    def fingerprint(config: MergeConfig) -> dict[str, Any]:
        fields = semantic_fields(config)
        if config.rows is None:
            del fields["rows"]  # the keys of merges without rows stay as they were
        return fields

    @staticmethod
    def tools(config: MergeConfig) -> tuple[str, ...]:
        return ("bitsandbytes", "peft", "transformers", "torch")

    @staticmethod
    def needs(config: MergeConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        base = inputs["adapter"].config
        rounded = rounding_packages(getattr(base, "axolotl", {}))
        return packages("numpy", "peft", "torch", "transformers", *rounded)

    @staticmethod
    def estimate(config: MergeConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.model_estimates import merge_estimate

        return merge_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[MergeConfig]) -> StageResult:
        """Merge, copy the model's other files, verify."""
        adapter = ctx.input("adapter")
        base = base_of(adapter)
        _refuse_other_tasks(adapter)
        verify_adapter(adapter.path)
        if hint := unrecorded_hint(adapter.path):
            ctx.warn(
                f"{adapter.label} is merged into its unrounded base, but {hint}: if the base "
                f"was rounded in training, put its BitsAndBytesConfig next to the adapter as "
                f"{QUANTIZATION_CONFIG}"
            )
        target = ctx.out / "model"
        ctx.progress(0, 3, "merging")
        with suppress_logs():
            trained = merge(
                base.path, adapter.path, target, adapter.label, threads=ctx.threads,
                held_out=_held_out_texts(ctx),
            )  # fmt: skip
            _copy_files(base.path, adapter.path, target)
            ctx.progress(1, 3, "verifying")
            metrics = verify_merge(base.path, target)
            ctx.progress(2, 3, "comparing with the adapter on its base")
            metrics |= compare(trained, target, f"{adapter.label}, merged,")
        metrics["base"] = describe(quantization_of(adapter.path))
        told = (
            f"{metrics['changed']} of {metrics['tensors']} tensors changed; "
            f"{metrics['mean_kl']:.1e} nats per token from the adapter on its base, "
            f"which is {metrics['learned_kl']:.2g} from the base"
        )
        if "held_out_kl" in metrics:
            told += (
                f"; {metrics['held_out_kl']:.1e} on {metrics['held_out_tokens']} tokens of "
                f"{ctx.input('rows').label}"
            )
        return StageResult({"model": target}, metrics, told)


@dataclass(frozen=True, slots=True)
class Trained:
    """The predictions of the trained model: the adapter on its base."""

    rows: list[list[int]]
    """Rows of token ids."""
    predictions: Any
    """Logits, shape (tokens of all rows, vocabulary)."""
    learned_kl: float
    """Their mean KL divergence from those of the base alone, in nats per token."""
    held_out: int = 0
    """How many of the tokens, at the end, are of held-out rows."""


def merge(
    base: Path,
    adapter: Path,
    target: Path,
    label: str,
    *,
    threads: int | None = None,
    held_out: Sequence[Conversation | Text] = (),
) -> Trained:
    """Write the merged model to ``target``; return the predictions that it must have.

    ``held_out`` are rows on which it is compared as well.

    Raises:
        StageError: Base and adapter do not fit, or the sum is not finite.
        MissingDependencyError: The base was rounded by bitsandbytes, which is not installed.
    """
    import torch

    from llmpipe.backends.huggingface.adapter_merge import hold_edges_in_float32, merge_adapter
    from llmpipe.parity.merged import (
        changed_tokens,
        comparison_rows,
        held_out_rows,
        learned_kl,
        predictions,
    )
    from llmpipe.stages.row_texts import text_of

    torch.manual_seed(0)  # PEFT initializes an adapter at random before it loads the values
    if threads:
        torch.set_num_threads(threads)
    weight_files(base)
    model = load_base(base, "auto", label, quantization=quantization_of(adapter))
    if getattr(model.config, "quantization_config", None):
        raise StageError(
            f"{base.name} has rounded weights that an adapter cannot be added to",
            hint="merge into the model as it was before it was rounded; bitsandbytes is covered",
        )
    formats = _formats(model, stored_dtype(base))
    hold_edges_in_float32(model)  # whole embeddings of the adapter are not rounded twice
    tuned = put_adapter(model, base, adapter, label)
    tokenizer = load_tokenizer_of(base, adapter)
    if held_out and tokenizer is None:
        raise StageError(f"{label} has no tokenizer, so it cannot read rows", hint="leave out rows")
    further = held_out_rows(tokenizer, [text_of(tokenizer, each) for each in held_out])
    rows = comparison_rows(tokenizer, changed_tokens(tuned)) + further
    predicted = predictions(tuned, rows)
    learned = learned_kl(tuned, predicted, rows)
    trained = Trained(rows, predicted, learned, sum(map(len, further)))
    merged = merge_adapter(tuned, label)
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(formats.get(name, stored_dtype(base)))
    merged.save_pretrained(target)
    return trained


def compare(trained: Trained, target: Path, label: str) -> dict[str, Any]:
    """Check that the merged folder predicts like the trained model; return the metrics.

    Raises:
        StageError: It does not.
    """
    from llmpipe.parity.divergence import divergence
    from llmpipe.parity.merged import folder_predictions, verify_same

    merged, dtype = folder_predictions(target, trained.rows)
    found = verify_same(trained.predictions, merged, dtype, label, learned=trained.learned_kl)
    held_out: dict[str, Any] = {}
    if trained.held_out:
        last = slice(-trained.held_out, None)
        apart = divergence(trained.predictions[last], merged[last])
        held_out = {"held_out_tokens": apart.tokens, "held_out_kl": apart.mean_kl}
    return {
        **held_out,
        "compared_tokens": found.tokens,
        "learned_kl": trained.learned_kl,
        "mean_kl": found.mean_kl,
        "max_kl": found.max_kl,
        "max_logit_difference": found.max_difference,
    }


def verify_merge(base: Path, merged: Path) -> dict[str, Any]:
    """Check that merged weights are finite and differ from the base; return the metrics.

    Raises:
        StageError: They are not finite, or none differs.
    """
    files = weight_files(merged)
    report = look(files)
    if report.not_finite:
        raise StageError(f"the merged model is not finite in {report.not_finite[0]}")
    before = weight_files(base)
    parted = report.shapes.keys() - tensor_shapes(before).keys()  # the head is not tied any more
    changed = [*differing(before, files), *parted]
    if not changed:
        raise StageError(
            "merging changed no weight",
            hint="in a 16-bit base a tiny update can round away: train longer or in float32",
        )
    return {"tensors": len(report.shapes), "changed": len(changed)}


def _held_out_texts(ctx: StageContext[MergeConfig]) -> Sequence[Conversation | Text]:
    """Draw a few of the held-out rows, if there are any."""
    if ctx.config.rows is None:
        return ()
    from llmpipe.stages.row_texts import sampled_texts

    return sampled_texts(ctx.input("rows"), HELD_OUT_ROWS, "to compare on")


def base_of(adapter: Artifact) -> Artifact:
    if adapter.base is None:
        raise StageError(
            f"{adapter.label} does not say which model it was trained on",
            hint="train it in this spec, or export it together with its base model",
        )
    return adapter.base


def _refuse_other_tasks(adapter: Artifact) -> None:
    task = read_adapter_config(adapter.path, adapter.label).get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise StageError(f"{adapter.label} is an adapter for {task}; only CAUSAL_LM is merged")


def _formats(model: Any, stored: Any) -> dict[str, Any]:
    """Return the number format for each weight: that of the base.

    A rounded base may be loaded in another format than its folder has.
    """
    loaded = model.dtype
    return {
        name: stored if parameter.dtype == loaded else parameter.dtype
        for name, parameter in model.named_parameters()
    }


def load_tokenizer_of(base: Path, adapter: Path) -> Any | None:
    """Load the adapter's tokenizer, or the base's; return None if neither has one."""
    from llmpipe.backends.huggingface.inference import load_tokenizer

    for folder in (adapter, base):
        if (folder / "tokenizer_config.json").is_file():
            return load_tokenizer(folder)
    return None


def _copy_files(base: Path, adapter: Path, target: Path) -> None:
    """Copy tokenizer and generation settings; keep what training changed in the configuration."""
    source = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    generation = base / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, target / generation.name)
    else:
        (target / generation.name).unlink(missing_ok=True)
    for file in weight_files(target):
        file.chmod(0o644)  # safetensors makes files readable for the owner only
    config = json.loads((target / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    write_json(target / "config.json", config)
