"""``llmpipe trace``: follow one row from its seed to the models that train on it, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmpipe.cli.options import (
    add_run,
    add_spec,
    open_pipeline,
    parser,
    print_json,
    print_warnings,
)  # fmt: skip

if TYPE_CHECKING:
    from llmpipe.api.trace import Place, Related, Trace
    from llmpipe.api.trace_models import ModelUse


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "trace",
        "Follow one row: the seeds and documents that it was made from, how it was made, the\n"
        "stages that kept or dropped it, the rows made from it, and the models that train on it.\n"
        "Nothing runs: what is not up to date is named and not searched.",
    )
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "artifact",
        metavar="STAGE[.OUTPUT]",
        help="where the row lies: dataset.rejects; or a file that a stage reads: tasks.seeds",
    )
    arguments.add_argument(
        "row", metavar="ROW", help="the number of its line, from 1, or the beginning of its id"
    )
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    options = arguments.parse_args(argv)
    command = ["trace", options.spec, options.artifact, options.row]
    trace = open_pipeline(options, command).trace(options.artifact, options.row)
    if options.json:
        print_json(asdict(trace))
        return 0
    print("\n".join(_lines(trace)))
    print_warnings(trace.notes)
    return 0


def _lines(trace: Trace) -> Iterator[str]:
    row = trace.row
    yield f"{row.artifact}:{row.line}  {row.id or 'rejected before it became a row'}"
    yield f"  {row.text}"
    if row.made:
        yield f"made by: {_how(row.made)}"
    yield from _block("made from", trace.made_from)
    yield from _block("found in", trace.places)
    yield from _block("made of it", trace.made_of_it)
    yield from map(_model, trace.models)
    if not trace.models:
        yield "models: none trains or is measured on it"


def _block(title: str, related: Related) -> Iterator[str]:
    total = sum(related.counts.values())
    if not total:
        yield f"{title}: nothing"
        return
    yield f"{title}: {total:,} {'row' if total == 1 else 'rows'}"
    for place in related.first:
        yield f"  {_place(place)}"
    for artifact, count in related.counts.items():
        listed = sum(place.artifact == artifact for place in related.first)
        if count > listed:
            yield f"  {artifact}: {count - listed:,} more"


def _place(place: Place) -> str:
    told = f"{place.artifact}:{place.line}"
    if place.rejected is None:
        return f"{told}  {place.text}"
    return f"{told}  dropped: {_how(place.rejected)}"


def _how(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in facts.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " → ".join(map(_value, value)) or "none"
    if isinstance(value, Mapping):
        return f"({_how(value)})"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _model(use: ModelUse) -> str:
    does = "trains on" if use.trains else "is measured on"
    what = "rows made of it" if use.descendants else "it"
    state = "" if use.made else " (not up to date in the store)"
    after = f"; models made of it: {', '.join(use.models)}" if use.models else ""
    return f"model: {use.stage} {does} {what}, in {use.reads}{state}{after}"
