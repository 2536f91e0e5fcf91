"""Make a trainable Hugging Face folder of a GGUF file, and prove that both read text alike.

Weights are dequantised to float32: four bytes a parameter on disk. What the quantisation lost stays
lost. Architectures are those that transformers can read; tokenizers are those of
`llmpipe.backends.gguf_import.RECIPES`, others are refused by name. The compiler adds this stage by
itself where a GGUF is given and a model is needed. About 30 s for 135M parameters on two cores.
"""

from __future__ import annotations

from llmpipe.contracts import (
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)


class ImportGgufConfig(StageConfig, frozen=True, kw_only=True):
    """What ``kind: import_gguf`` takes."""

    gguf: str
    """The GGUF file: a path, ``pkg://package/path``, or an export stage's output."""


class ImportGguf(StageDefaults):
    """GGUF → Hugging Face folder."""

    Config = ImportGgufConfig
    VERSION = 1
    determinism = "exact"

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
    def run(ctx: StageContext[ImportGgufConfig]) -> StageResult:
        from llmpipe.backends.gguf_import import import_model
        from llmpipe.backends.llama_cpp import serve_gguf
        from llmpipe.parity.gate import Reference, verify

        gguf, folder = ctx.input("gguf"), ctx.out / "model"
        ctx.progress(0, 2, "weights")
        import_model(gguf.path, folder)
        ctx.progress(1, 2, "tokens")
        with serve_gguf(gguf.path, threads=ctx.threads, log=ctx.work / "llama.cpp.log") as server:
            parity = verify(
                Reference.load(folder),
                gguf.path,
                server,
                label=gguf.label,
                require_end_of_turn=False,  # a property of the model given, not of the import
                warn=ctx.warn,
            )
        ctx.progress(2, 2)
        return StageResult({"model": folder}, parity.as_json())
