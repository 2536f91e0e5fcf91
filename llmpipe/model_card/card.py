"""Write a model card: metadata that the hub understands, then what was done, with figures.

The card has a digest of itself in its metadata, by which a later publish knows whether someone has
edited it on the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from markupsafe import Markup

from llmpipe.model_card.facts import CardFacts, without_places
from llmpipe.model_card.markdown import block, code, hiding, render, table
from llmpipe.model_card.measures import comparisons, quantizations
from llmpipe.report.rows import counts
from llmpipe.runner.messages import size_text
from llmpipe.runner.records import KeyRecord

WEIGHTS = (".safetensors", ".gguf")
SHORT = 16
"""Characters of a key that the card shows."""
_UNSIGNED = "0" * 64
_SIGNED = re.compile(r"^(  card: )'?([0-9a-f]{64})'?$", re.MULTILINE)
_SPEC = re.compile(r"^llmpipe:\n(?:  .*\n)*?  spec: (.+)$", re.MULTILINE)


def make_card(facts: CardFacts, hide: Callable[[Any], Any]) -> str:
    """Return the card of what is published.

    Args:
        facts: All that the card contains.
        hide: Returns plain data without secrets.
    """
    front = yaml.safe_dump(hide(metadata(facts)), sort_keys=False, allow_unicode=True)
    document = without_places(facts.document, facts.graph.spec.folder)
    recipe = yaml.safe_dump(hide(document), sort_keys=False, allow_unicode=True, width=96)
    with hiding(hide):
        body = _body(facts, recipe)
    return f"---\n{front}---\n\n{body}"


def _body(facts: CardFacts, recipe: str) -> str:
    return render(
        "card.md",
        facts=facts,
        title=facts.repo.rpartition("/")[2],
        files=_files(facts),
        types=sorted({piece.type for piece in facts.pieces}),
        adapter_folder=next(
            (
                path.rpartition("/")[0]
                for piece in facts.pieces
                for path in piece.files
                if piece.type == "adapter"
            ),
            "",
        ),
        ggufs=[path for p in facts.pieces if p.type == "gguf" for path in p.files],
        rows=_rows(facts),
        sources=_sources(facts),
        trainings=_trainings(facts),
        unexplained=Markup(", ").join(map(code, facts.unexplained())),
        comparisons=list(comparisons(facts)),
        quantizations=list(quantizations(facts)),
        stages=_stages(facts),
        versions=_versions(facts),
        recipe=block(recipe, "yaml"),
    )


def signed(card: str) -> str:
    """Return a card with the digest of itself."""
    return _SIGNED.sub(lambda match: f"{match[1]}'{_digest(card)}'", card, count=1)


def is_unedited(card: str) -> bool:
    """Return whether a card is as `signed` wrote it."""
    found = _SIGNED.search(card)
    return found is not None and found[2] == _digest(card)


def spec_of(card: str) -> str | None:
    """Return the name of the spec that a card is of, or None if llmpipe did not write it."""
    found = _SPEC.search(card)
    if found is None:
        return None
    try:
        return str(yaml.safe_load(found[1]))
    except yaml.YAMLError:
        return None


def _digest(card: str) -> str:
    blank = _SIGNED.sub(lambda match: f"{match[1]}'{_UNSIGNED}'", card, count=1)
    return hashlib.sha256(blank.encode()).hexdigest()


def metadata(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata of a card; what is not known is left out."""
    types: set[str] = {piece.type for piece in facts.pieces}
    bases = [base.repo for base in facts.bases if base.repo]
    relation = {"model": "finetune", "adapter": "adapter"}
    related = next((word for kind, word in relation.items() if kind in types), None)
    found: dict[str, Any] = {
        **facts.license.metadata(),
        "base_model": bases[0] if len(bases) == 1 else bases or None,
        "base_model_relation": related if bases and facts.trainings() else None,
        "library_name": _library(types),
        "pipeline_tag": "text-generation" if facts.loader == "AutoModelForCausalLM" else None,
        "datasets": sorted({s.repo for s in facts.sources() if s.repo}) or None,
        "tags": _tags(facts, types),
        "llmpipe": {"spec": facts.spec, "card": _UNSIGNED},
    }
    return {key: value for key, value in found.items() if value is not None}


def _library(types: set[str]) -> str | None:
    if "model" in types:
        return "transformers"
    return "peft" if "adapter" in types else None


def _tags(facts: CardFacts, types: set[str]) -> list[str]:
    tags = ["llmpipe"]
    for record in facts.trainings().values():
        if record.kind != "train":
            continue
        settings = _settings(record)
        tags += ["axolotl", *(str(settings[k]) for k in ("adapter", "rl") if settings.get(k))]
    return [*dict.fromkeys([*tags, *(["gguf"] if "gguf" in types else [])])]


def _files(facts: CardFacts) -> Any:
    rows = []
    for piece in facts.pieces:
        small = [path for path in piece.files if not path.endswith(WEIGHTS)]
        for path, entry in piece.files.items():
            if path.endswith(WEIGHTS):
                rows.append(
                    [code(path), code(piece.label), size_text(entry.size), code(entry.sha256)]
                )
        if small:
            rows.append([f"{len(small)} other files", code(piece.label), "", ""])
    return table(["file", "artifact", "size", "SHA-256"], rows)


def _rows(facts: CardFacts) -> Any:
    rows = []
    for name, record in facts.records.items():
        found = counts(record.metrics)
        if found is None:
            continue
        kept = ", ".join(f"{count:,} {part}" for part, count in found.kept.items())
        dropped = ", ".join(f"{count:,} {why}" for why, count in found.dropped.items() if count)
        made = record.metrics.get("generated")
        rows.append([code(name), f"{found.total:,}", kept, dropped or "none", made or ""])
    head = ["stage", "rows in", "kept", "dropped", "of them generated"]
    return table(head, rows) if rows else None


def _sources(facts: CardFacts) -> Any:
    rows = [[code(s.stage), code(s.label), code(s.version)] for s in facts.sources()]
    return table(["read by", "source", "commit or digest"], rows) if rows else None


def _trainings(facts: CardFacts) -> Any:
    rows = []
    for name, record in facts.trainings().items():
        if record.kind != "train":  # what the metrics of other kinds mean is not known
            rows.append([code(name), f"stage kind {record.kind}", *[""] * 7])
            continue
        settings = _settings(record)
        found = record.metrics
        rows.append(
            [
                code(name),
                settings.get("rl") or "supervised",
                settings.get("adapter") or "",
                *(
                    f"{found[k]:,}" if k in found else ""
                    for k in ("steps", "rows", "trained_tokens")
                ),
                *(
                    f"{found[k]:.4g}" if k in found else ""
                    for k in ("loss_last_fifth", "eval_loss_last")
                ),
                _seed(settings),
            ]
        )
    head = ["stage", "method", "adapter", "steps", "rows", "trained tokens"]
    head += ["training loss, last fifth", "last loss on held-out rows", "seed"]
    return table(head, rows) if rows else None


def _settings(record: KeyRecord) -> Mapping[str, Any]:
    """Return the Axolotl block by which a stage trained, as its key has it."""
    found: Mapping[str, Any] = record.ingredients.get("config", {}).get("axolotl", {})
    return found


def _seed(settings: Mapping[str, Any]) -> str:
    return str(settings["seed"]) if "seed" in settings else ""


def _stages(facts: CardFacts) -> Any:
    rows = [
        [
            code(name),
            record.kind,
            code(record.key[:SHORT]),
            ", ".join(f"{out} {made.digest[:SHORT]}" for out, made in record.outputs.items()),
        ]
        for name, record in _all_records(facts).items()
    ]
    return table(["stage", "kind", "key", "artifacts"], rows)


def _all_records(facts: CardFacts) -> dict[str, KeyRecord]:
    """Return what the stages made that lead to the files, and that measure them."""
    return {**facts.records, **{name: record for name, (record, _) in facts.measured.items()}}


def _versions(facts: CardFacts) -> str:
    tools: dict[str, str] = {}
    for record in _all_records(facts).values():
        tools |= {n: v for n, v in record.ingredients.get("tools", {}).items() if v}
    return ", ".join(f"{name} {version}" for name, version in sorted(tools.items()))
