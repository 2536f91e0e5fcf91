"""``llmpipe publish``: publish models in a repository of the Hugging Face hub, with a card."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llmpipe.cli.options import add_run, add_spec, open_pipeline, parser, print_json
from llmpipe.errors import UsageError
from llmpipe.runner.messages import size_text

if TYPE_CHECKING:
    from llmpipe.api.publishing import Publication, Published


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    if options.dry_run and (options.public or options.prune or options.card):
        raise UsageError(
            "--dry-run shows files and card, for which --public, --prune and --card do nothing",
            hint="leave them out",
        )
    command = ["publish", options.spec, *options.stage, "--to", options.to]
    pipeline = open_pipeline(options, command)
    made = pipeline.publication(options.to, options.stage, license=options.license)
    if options.dry_run:
        _show(made, as_json=options.json)
        return 0
    done = made.publish(public=options.public, card=options.card, prune=options.prune)
    _tell(done, made, as_json=options.json)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "publish",
        "Publish adapters, models and GGUF files with a model card on the Hugging Face hub.\n"
        "HF_TOKEN holds the token, HF_ENDPOINT the address of another hub.",
    )
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "stage",
        metavar="STAGE",
        nargs="*",
        help="these stages or outputs (STAGE.OUTPUT); all that was trained by default",
    )
    arguments.add_argument(
        "--to", metavar="OWNER/NAME", required=True, help="the repository; created if needed"
    )
    arguments.add_argument(
        "--dry-run", action="store_true", help="print the files and the card, publish nothing"
    )
    arguments.add_argument(
        "--license",
        metavar="ID",
        help="the license of the files, such as apache-2.0; by default what the base model states",
    )
    arguments.add_argument(
        "--public", action="store_true", help="everybody may see it; private by default"
    )
    arguments.add_argument(
        "--card",
        choices=["replace", "keep"],
        help="publish over a card that was edited, or that llmpipe did not write",
    )
    arguments.add_argument(
        "--prune", action="store_true", help="remove other files from the repository"
    )
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    return arguments.parse_intermixed_args(argv)


def _show(made: Publication, *, as_json: bool) -> None:
    """Print what would be published."""
    if as_json:
        files = [
            {"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in made.contents
        ]
        print_json({"repo": made.repo, "files": files, "card": made.card})
        return
    width = max(map(len, made.files))
    for path, size in made.files.items():
        print(f"{path:<{width}}  {size_text(size)}")
    print(f"{len(made.files)} files, {size_text(sum(made.files.values()))}, for {made.repo}\n")
    print(made.card, end="")


def _tell(done: Published, made: Publication, *, as_json: bool) -> None:
    """Print what was published."""
    if as_json:
        print_json(
            {
                "repo": made.repo, "url": done.url, "commit": done.commit,
                "private": done.private, "created": done.created,
                "uploaded": list(done.uploaded), "unchanged": list(done.unchanged),
                "removed": list(done.removed), "left": list(done.left),
            }
        )  # fmt: skip
        return
    for word, names in (("uploaded", done.uploaded), ("removed", done.removed)):
        for name in names:
            size = f", {size_text(made.files[name])}" if name in made.files else ""
            print(f"{word}: {name}{size}")
    if done.unchanged:
        print(f"unchanged: {len(done.unchanged)} files")
    for name in done.left:
        print(f"left as it is: {name} (not part of this publish; --prune removes it)")
    seen = "private" if done.private else "public"
    print(f"{done.url}/tree/{done.commit} ({seen}{', created' if done.created else ''})")
