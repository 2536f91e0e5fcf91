"""What the kinds that convert, merge, evaluate and serve models take before they run.

The tensors of the model decide (`llmpipe.estimate.weights`); a model that is not known, has no
estimate, and a note says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from llmpipe.backends.llama_cpp.engines import ENGINES
from llmpipe.backends.llama_cpp.mixtures import CONVERTED
from llmpipe.contracts import EstimateContext, Hardware, Needs
from llmpipe.estimate.loaded import (
    COMPUTING,
    TORCH,
    Parts,
    answers,
    heaviest,
    in_llama_cpp,
    in_transformers,
    number,
    scores,
    together,
)
from llmpipe.estimate.weights import Unknown, Weights, find_weights
from llmpipe.needs import Given

if TYPE_CHECKING:
    from llmpipe.stages.evaluate_config import EvaluateConfig
    from llmpipe.stages.export import ExportConfig
    from llmpipe.stages.export_adapter import ExportAdapterConfig
    from llmpipe.stages.import_gguf import ImportGgufConfig
    from llmpipe.stages.merge import MergeConfig
    from llmpipe.stages.serve import ServeConfig

CONTEXT = 2048
"""Tokens of the context with which a file is checked."""

COMPARED = 500
"""Tokens on which a merge is compared with the adapter on its base."""

HELD_OUT = 6 * 96
"""Tokens of held-out rows on which it is compared, too: rows, and tokens of each at most."""

CONVERTER = 120_000_000
"""The process of llama.cpp's converter beside the tensor that it converts."""

LOGITS_KEPT = (
    "`kl` and `same_top` keep logits on disk while the stage runs: 4 bytes × tokens of the answers "
    "× vocabulary"
)

LIBRARIES: Parts = {"libraries": TORCH + COMPUTING}


def unknown(reason: str) -> Needs:
    """Return that nothing is known, and why."""
    return Needs(notes=(f"memory and disk are not known: {reason}",))


def import_estimate(
    config: ImportGgufConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what an import takes: the weights twice in float32 while transformers reads them."""
    weights = find_weights(inputs["gguf"], online=asked.online)
    if isinstance(weights, Unknown):
        return unknown(weights.reason)
    whole = 4 * weights.parameters
    reading = {"libraries": TORCH, "weights": whole, "tensors of the file": whole}
    served = in_llama_cpp(weights, context=CONTEXT)
    comparing = {**LIBRARIES, "weights": whole, "llama.cpp": sum(served.values())}
    parts = heaviest(reading, comparing)
    return Needs(memory=sum(parts.values()), disk=whole, parts=parts)


def merge_estimate(
    config: MergeConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what a merge takes: the model once, its edges and a block in float32, predictions."""
    weights = find_weights(inputs["adapter"], online=asked.online)
    if isinstance(weights, Unknown):
        return unknown(weights.reason)
    parts = together(
        LIBRARIES,
        {
            "weights": weights.stored,
            "edges in float32": 0 if _is_float32(weights) else 4 * weights.edges,
            "block in float32": 4 * weights.block,
        },
        _predictions(weights, 4, COMPARED + (0 if config.rows is None else HELD_OUT)),
    )
    return Needs(memory=sum(parts.values()), disk=weights.stored, parts=heaviest(parts))


def export_estimate(
    config: ExportConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return the size of each type, and the memory of the step that takes most."""
    weights = find_weights(inputs["model"], online=asked.online)
    if isinstance(weights, Unknown):
        return unknown(weights.reason)
    names = [config.quantize] if isinstance(config.quantize, str) else list(config.quantize)
    important = config.calibration is not None
    sizes = {name: weights.as_gguf(name, importance=important) for name in names}
    steps = [{"converter": CONVERTER, "largest tensor": 3 * 4 * _largest(weights)}]
    if config.parity.continuations:
        steps.append(together(LIBRARIES, in_transformers(weights, Hardware())))
    for size in sizes.values():
        served = in_llama_cpp(replace(weights, stored=size), context=CONTEXT)
        steps.append(together(LIBRARIES, {"llama.cpp": sum(served.values())}))
    parts = heaviest(*steps)
    return Needs(
        memory=sum(parts.values()),
        disk=sum(sizes.values()),
        temporary=_source(weights, names),
        parts=parts,
        outputs=sizes,
    )


def _source(weights: Weights, names: list[str]) -> int | None:
    """Return the bytes of the conversion that the other types are made from, if it is deleted."""
    if set(names) <= set(CONVERTED) or names == ["q8_0"]:
        return None
    if _is_float32(weights):
        return 4 * weights.parameters
    return None if set(names) & set(CONVERTED) else 2 * weights.parameters


def export_adapter_estimate(
    config: ExportAdapterConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: the base in memory, then served as a file that is deleted."""
    weights = find_weights(inputs["adapter"], online=asked.online)
    if isinstance(weights, Unknown):
        return unknown(weights.reason)
    served = in_llama_cpp(weights, context=256)
    predicting = together(LIBRARIES, {"weights": weights.stored}, _predictions(weights, 4))
    comparing = together(
        LIBRARIES, {"weights": weights.stored, "llama.cpp": sum(served.values())},
        _predictions(weights, 2),
    )  # fmt: skip
    parts = heaviest(predicting, comparing)
    return Needs(
        memory=sum(parts.values()),
        disk=inputs["adapter"].size,
        temporary=weights.stored,
        parts=parts,
        notes=() if inputs["adapter"].size else ("disk is not known before the training",),
    )


def evaluate_estimate(
    config: EvaluateConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what the model takes that takes most: they are evaluated one after the other."""
    scored = {"loss", "kl", "same_top"} & set(config.metrics)
    answered = set(config.metrics) - {"loss", "kl", "same_top"}
    hardware = asked.hardware
    host: list[Parts] = []
    gpu: list[Parts] = []
    notes: list[str] = []
    models = {port: given for port, given in inputs.items() if port.startswith("models.")}
    if config.reward_model is not None:
        models["reward_model"] = inputs["reward_model"]
    libraries = LIBRARIES if any(g.type != "gguf" for g in models.values()) else {}
    for port, given in models.items():
        weights = find_weights(given, online=asked.online)
        if isinstance(weights, Unknown):
            notes.append(f"memory is not known: {port}: {weights.reason}")
            continue
        if given.type == "gguf":
            context = CONTEXT + config.max_new_tokens
            host.append(together(libraries, in_llama_cpp(weights, context=context)))
            continue
        work = [in_transformers(weights, hardware)]
        if scored:
            work.append(together(work[0], scores(weights)))
        if answered and port != "reward_model":
            rows = answers(weights, hardware, config.batch_size, config.max_new_tokens)
            work.append(together(work[0], rows))
        if hardware.kind == "cuda":
            gpu.append(heaviest(*work))
            host.append(together(LIBRARIES, {"reading weights": weights.stored}))
        else:
            host.append(together(LIBRARIES, heaviest(*work)))
    if notes:
        return Needs(notes=tuple(notes))
    main, card = heaviest(*host), heaviest(*gpu) if gpu else {}
    return Needs(
        memory=sum(main.values()),
        gpu_memory=sum(card.values()) if card else None,
        parts=card or main,
        notes=(LOGITS_KEPT,) if {"kl", "same_top"} & set(config.metrics) else (),
    )


def serve_estimate(
    config: ServeConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what ``llmpipe serve`` takes: weights, a cache for each slot, buffers, adapters."""
    models: list[Weights] = []
    for port in ("model", "compare"):
        if port not in inputs:
            continue
        weights = find_weights(inputs[port], online=asked.online)
        if isinstance(weights, Unknown):
            return unknown(weights.reason)
        models.append(weights)
    if ENGINES[config.engine].serves == "model":
        return _by_transformers(models, config.context, asked.hardware)
    served = (in_llama_cpp(w, context=config.context, slots=config.slots) for w in models)
    found = together({}, *served)
    adapters = [given.size or 0 for port, given in inputs.items() if port.startswith("adapters.")]
    parts = heaviest(together(found, {"adapters": sum(adapters)}))
    return Needs(memory=sum(parts.values()), parts=parts, notes=tuple(_of_serving(config)))


def _by_transformers(models: Iterable[Weights], context: int, hardware: Hardware) -> Needs:
    """Return what a process for each model takes, with one conversation in its cache."""
    host: Parts = {}
    card: Parts = {}
    for weights in models:
        cache = {"KV cache": weights.cache(context, number(hardware))}
        loaded = together(in_transformers(weights, hardware), cache)
        if hardware.kind == "cuda":
            card = together(card, loaded)
            loaded = {"reading weights": weights.stored}
        host = together(host, LIBRARIES, loaded)
    return Needs(
        memory=sum(host.values()),
        gpu_memory=sum(card.values()) if card else None,
        parts=heaviest(card or host),
    )


def _of_serving(config: ServeConfig) -> Iterator[str]:
    yield "the weights are mapped: the system can drop pages of them and read them again"
    if config.engine != "xllamacpp":
        yield f"{config.engine} may keep weights on a GPU; this counts main memory alone"


def _predictions(weights: Weights, copies: int, tokens: int = COMPARED) -> Parts:
    return {"predictions": copies * 4 * tokens * weights.vocabulary}


def _largest(weights: Weights) -> int:
    return max(map(prod, weights.shapes.values()), default=0)


def _is_float32(weights: Weights) -> bool:
    return weights.stored > 3 * weights.parameters
