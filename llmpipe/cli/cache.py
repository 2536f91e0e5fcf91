"""``llmpipe cache``: verify the store, byte by byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from llmpipe.cli.options import add_store, open_store, parser, print_json
from llmpipe.errors import StoreError
from llmpipe.runner.store import Store
from llmpipe.terminal import redraw


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "cache",
        "Read every artifact and record of the store again, and remove those that have changed;\n"
        "the next run makes or fetches them again. What cannot be read is kept.\n"
        "Exits with 1 if anything is wrong.",
    )
    arguments.add_argument("action", choices=["verify"])
    add_store(arguments)
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_intermixed_args(argv)
    store = open_store(options)
    with store.alone("cache verify"):
        found = sorted(path.name for path in store.objects.iterdir())
        rotten, unreadable = _verify(store, found)
        damaged = list(_verify_records(store))
    if options.json:
        told = {"artifacts": len(found), "rotten": rotten, "unreadable": unreadable}
        print_json({**told, "records": damaged})
    else:
        for item in (*rotten, *unreadable):
            print(
                f"{item['object'][:16]} ({item['made_by'] or 'origin unknown'}): {item['problem']}"
            )
        for item in damaged:
            print(f"the record of key {item['key'][:16]}: {item['problem']}")
        taken = " and removed" if rotten else ""
        left = f", {len(unreadable)} unreadable" if unreadable else ""
        gone = sum(item["taken_out"] for item in damaged)
        records = f"; {len(damaged)} records damaged, {gone} of them removed" if damaged else ""
        print(f"{len(found)} artifacts, {len(rotten)} rotten{taken}{left}{records}")
    return 1 if rotten or unreadable or damaged else 0


def _verify(store: Store, found: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read every object; remove the damaged ones, and list them and the unreadable ones."""
    rotten: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    makers = _makers(store)
    for i, name in enumerate(found, 1):
        redraw(f"{i}/{len(found)}", end="\n" if i == len(found) else "")
        item = {"object": name, "made_by": ", ".join(makers.get(name, []))}
        try:
            wrong = store.rotten(name)
        except StoreError as error:
            unreadable.append({**item, "problem": f"{error.message}; {error.hint}"})
            continue
        if wrong:
            rotten.append({**item, "problem": wrong})
            store.discard(name)
    return rotten, unreadable


def _verify_records(store: Store) -> Iterator[dict[str, Any]]:
    """Remove records that are damaged or contradict their artifacts; list them."""
    for path in sorted(store.keys.glob("*.json")):
        key = path.stem
        wrong, record = store.record_damage(key), store.record(key)
        outputs = record.outputs.items() if record else ()
        for name, output in outputs:
            if not (store.lacks(output.object) or store.holds(output)):
                wrong = f"{name} is not what it says"
        if wrong:
            readable = os.access(path, os.R_OK)
            if readable:
                store.discard_record(key)
            yield {"key": key, "problem": wrong, "taken_out": readable}


def _makers(store: Store) -> dict[str, list[str]]:
    """Return the outputs, by kind of stage, that each object stands for."""
    makers: dict[str, list[str]] = {}
    for path in store.keys.glob("*.json"):
        record = store.record(path.stem)
        if record is None:
            continue
        for name, output in record.outputs.items():
            named = makers.setdefault(output.object, [])
            if (text := f"{record.kind}: {name}") not in named:
                named.append(text)
    return makers
