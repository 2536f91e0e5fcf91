"""Convert a GGUF to a trainable Hugging Face folder; check that both tokenize and predict alike.

Weights are dequantized to float32: four bytes per parameter on disk. The loss of quantization is
permanent. A split GGUF is joined temporarily. Every tensor must belong to the model, and the model
must predict what llama.cpp predicts from the file, up to rounding. The architecture must be known
to transformers, and the tokenizer to `llmpipe.backends.huggingface.gguf_import.RECIPES`; others are
refused by name. The compiler inserts this stage if a GGUF is given where a model is needed. It
takes about a minute for 135M parameters on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmpipe.contracts import (
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
)
from llmpipe.needs import Given, Need, packages


class ImportGgufConfig(StageConfig, frozen=True, kw_only=True):
    """The GGUF to import."""

    gguf: str
    """The GGUF file: a path, ``pkg://package/path``, or an export stage's output. For a split GGUF,
    name the first part, ``NAME-00001-of-0000N.gguf``."""


class ImportGguf(StageDefaults, Estimates):
    """GGUF → Hugging Face folder."""

    Config = ImportGgufConfig
    VERSION = 2
    determinism = "exact"
    imports = ("torch", "transformers")

    @staticmethod
    def ports(config: ImportGgufConfig) -> Ports:
        return Ports(
            inputs={"gguf": Input(("gguf",), config.gguf, ("gguf",))},
            outputs={"model": Output("model", origin="gguf")},
            default="model",
        )

    @staticmethod
    def tools(config: ImportGgufConfig) -> tuple[str, ...]:
        return ("gguf", "tokenizers", "transformers", "xllamacpp")

    @staticmethod
    def needs(config: ImportGgufConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        names = ("gguf", "numpy", "tokenizers", "torch", "transformers", "xllamacpp")
        return packages(*names)

    @staticmethod
    def estimate(
        config: ImportGgufConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.model_estimates import import_estimate

        return import_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[ImportGgufConfig]) -> StageResult:
        from llmpipe.backends.huggingface.gguf_import import import_model
        from llmpipe.backends.llama_cpp.serve import serve_gguf
        from llmpipe.parity.gate import Reference, verify
        from llmpipe.parity.predictions import compare_predictions

        gguf, folder = ctx.input("gguf"), ctx.out / "model"
        ctx.progress(0, 3, "weights")
        import_model(gguf.path, folder, work=ctx.work, warn=ctx.warn)
        ctx.progress(1, 3, "tokens")
        with serve_gguf(gguf.path, threads=ctx.threads, log=ctx.work / "llama.cpp.log") as server:
            parity = verify(
                Reference.load(folder),
                gguf.path,
                server,
                label=gguf.label,
                require_end_of_turn=False,  # a property of the model given, not of the import
                warn=ctx.warn,
            )
            ctx.progress(2, 3, "predictions")
            predictions = compare_predictions(
                folder, gguf.path, server, label=gguf.label, threads=ctx.threads
            )
        ctx.progress(3, 3)
        apart = predictions.divergence
        return StageResult(
            {"model": folder},
            {**parity.as_json(), "predictions": predictions.as_json()},
            f"{apart.tokens} predictions compared: {apart.mean_kl:.2g} nats apart",
        )
