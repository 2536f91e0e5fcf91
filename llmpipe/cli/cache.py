"""``llmpipe cache``: verify the store, byte by byte."""

from __future__ import annotations

import sys
from pathlib import Path

from llmpipe.cli.options import add_store, parser, print_json
from llmpipe.runner.project import home_for
from llmpipe.runner.store import Store


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "cache",
        "Read every artifact of the store again and take out those whose bytes have changed;\n"
        "the next run makes them anew. Exits with 1 when there were any.",
    )
    arguments.add_argument("action", choices=["verify"])
    add_store(arguments)
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    options = arguments.parse_args(argv)
    store = Store(home_for(Path(options.spec)))
    store.create()
    rotten: dict[str, str] = {}
    with store.alone("verify"):
        makers = _makers(store)
        found = sorted(path.name for path in store.objects.iterdir())
        for i, name in enumerate(found, 1):
            if sys.stderr.isatty():
                print(f"\r{i}/{len(found)}", end="", file=sys.stderr, flush=True)
            wrong = store.rotten(name)
            if wrong:
                rotten[name] = wrong
                store.discard(name)
    if options.json:
        print_json({"artifacts": len(found), "rotten": rotten})
    else:
        for name, wrong in rotten.items():
            print(f"{name[:16]} ({', '.join(makers.get(name, ['nobody']))}): {wrong}")
        print(f"{len(found)} artifacts, {len(rotten)} rotten{' and taken out' if rotten else ''}")
    return 1 if rotten else 0


def _makers(store: Store) -> dict[str, list[str]]:
    """Name the outputs, by kind of stage, that each object stands for."""
    makers: dict[str, list[str]] = {}
    for path in store.keys.glob("*.json"):
        record = store.record(path.stem)
        for name, output in (record.outputs if record else {}).items():
            assert record is not None
            makers.setdefault(output.object, []).append(f"{record.kind}: {name}")
    return makers
