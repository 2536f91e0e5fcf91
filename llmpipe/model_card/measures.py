"""The measurements of a card: models compared on held-out rows, and what each quantization costs.

What a stage compares is recognized by the shape of its metrics file, as in the report.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from markupsafe import Markup

from llmpipe.evaluation.summary import cell
from llmpipe.model_card.facts import CardFacts
from llmpipe.model_card.markdown import code, table
from llmpipe.report.results import LOWER_IS_BETTER


def comparisons(facts: CardFacts) -> Iterator[tuple[str, Markup, Markup | None, int]]:
    """Yield for each stage that compares models: its name, the table of metrics, the table of
    differences to the first model, and the number of rows."""
    names = _names(facts)
    for stage, (_, summary) in facts.measured.items():
        models = _in_order(facts, stage, summary["models"])
        metrics = _metrics(models)
        if not metrics:
            continue
        head = ["model", "file", *map(_titled, metrics)]
        rows = [
            [
                code(label),
                names.get((stage, label), ""),
                *(_cell(_interval(found, m)) for m in metrics),
            ]
            for label, found in models.items()
        ]
        first = next(iter(models))
        pairs = [pair for pair in summary["paired"] if pair["a"] == first]
        differences = [
            [
                code(f"{label} − {first}"),
                *(_cell(_pair(pairs, label, m)) for m in metrics),
            ]
            for label in [*models][1:]
        ]
        over = table(["difference", *metrics], differences) if differences else None
        yield stage, table(head, rows), over, _rows(models)


def quantizations(facts: CardFacts) -> Iterator[tuple[str, Markup]]:
    """Yield for each stage that measures GGUF files: its name, and the table of these files."""
    names = _names(facts)
    for stage, (record, summary) in facts.measured.items():
        files: Mapping[str, Mapping[str, Any]] = summary.get("files", {})
        if not files:
            continue
        models = _in_order(facts, stage, summary["models"])
        reference = _reference(models, files)
        rows = []
        for label, file in _in_order(facts, stage, files).items():
            found = models[label]
            against = [_pair(summary["paired"], label, "loss", a) for a in reference]
            fell = ", ".join(f"{n} {kinds}" for kinds, n in file["fell_back"].items())
            speed = record.metrics.get(label, {}).get("tokens_per_second")
            rows.append(
                [
                    names.get((stage, label)) or code(label),
                    f"{file['bytes'] / 1e6:.1f} MB",
                    f"{file['bits_per_weight']:.2f}",
                    f"{file['fallbacks']} of {file['tensors']}: {fell}" if fell else "none",
                    _cell(against[0] if against else None),
                    *(_cell(_interval(found, name)) for name in ("kl", "same_top", "exact_match")),
                    f"{speed:g}" if speed is not None else "–",
                ]
            )
        compared = f"loss − {reference[0]}" if reference else "loss"
        head = ["file", "size", "bits per weight", "tensors of another type", compared]
        head += ["KL", "same top token", "exact match", "tokens a second"]
        yield stage, table(head, rows)


def _reference(models: Iterable[str], files: Container[str]) -> list[str]:
    """Return the model that the files are compared with, as `evaluate` chooses it, if any."""
    before = [*takewhile(lambda label: label not in files, models)]
    others = [label for label in models if label not in files]
    return before[-1:] or others[:1]


def _names(facts: CardFacts) -> dict[tuple[str, str], Markup]:
    """Return the published file of each compared model, by stage and model."""
    weights = {
        piece.stored.digest: next(
            (path for path in piece.files if path.endswith((".gguf", ".safetensors"))), ""
        )
        for piece in facts.pieces
    }
    found = {}
    for stage, (record, _) in facts.measured.items():
        for port, shape in record.ingredients.get("inputs", {}).items():
            binding = facts.graph.nodes[stage].bindings.get(port)
            if binding is not None and weights.get(shape.get("digest")):
                found[stage, binding.label] = code(weights[shape["digest"]])
    return found


def _in_order(
    facts: CardFacts, stage: str, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the models in the order in which the spec lists them."""
    labels = [binding.label for binding in facts.graph.nodes[stage].bindings.values()]
    listed = {label: models[label] for label in labels if label in models}
    return {**listed, **models}


def _metrics(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics that have intervals, the known ones first."""
    found = dict.fromkeys(m for model in models.values() for m in model if _interval(model, m))
    return [
        *(m for m in LOWER_IS_BETTER if m in found),
        *(m for m in found if m not in LOWER_IS_BETTER),
    ]


def _cell(found: Mapping[str, float] | None) -> Markup:
    return Markup(cell(found))


def _interval(found: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    value = found.get(metric)
    return value if isinstance(value, dict) else None


def _pair(
    pairs: Sequence[Mapping[str, Any]], model: str, metric: str, first: str | None = None
) -> Mapping[str, float] | None:
    return next(
        (
            pair
            for pair in pairs
            if pair["b"] == model and pair["metric"] == metric and first in (None, pair["a"])
        ),
        None,
    )


def _rows(models: Mapping[str, Mapping[str, Any]]) -> int:
    return max(
        int(v["n"]) for found in models.values() for v in found.values() if isinstance(v, dict)
    )


def _titled(metric: str) -> str:
    if metric not in LOWER_IS_BETTER:
        return metric
    return f"{metric} ({'lower' if LOWER_IS_BETTER[metric] else 'higher'} is better)"
