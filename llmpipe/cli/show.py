"""``llmpipe show``: print the first rows of a training or generation stage."""

from __future__ import annotations

from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json, print_warnings
from llmpipe.errors import UsageError


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "show",
        "Print the first rows of a train stage as its chat template renders them. What is trained\n"
        "stands between ⟦ and ⟧, by the installed Axolotl's own tokenization. No model is loaded.\n"
        "\n"
        "Of a generate stage, make a few rows and print them with their prompts and rejects. The\n"
        "teacher is asked, which may cost money; a run does not ask for the same replies again.",
    )
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", help="a train or generate stage")
    arguments.add_argument("--rows", metavar="N", type=int, default=3, help="how many rows (3)")
    arguments.add_argument("--json", action="store_true", help="print a JSON list of texts")
    options = arguments.parse_args(argv)
    if options.rows < 1:
        raise UsageError(f"--rows {options.rows}: it must be 1 or more")
    texts, notes = open_pipeline(options).show(options.stage, rows=options.rows)
    print_warnings(notes)
    if options.json:
        print_json(texts)
        return 0
    for number, text in enumerate(texts, 1):
        print(f"── {number} of {len(texts)}\n{text.rstrip()}\n")
    return 0
