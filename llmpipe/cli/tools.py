"""``llmpipe tools``: install and list programs that live outside the Python environment."""

from __future__ import annotations

from pathlib import Path

from llmpipe.backends import tools
from llmpipe.cli.options import parser, print_json


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("tools", "Install and list external tools: llama.cpp's converter to GGUF.")
    arguments.add_argument("action", choices=["install", "list"])
    arguments.add_argument(
        "--into", metavar="FOLDER", type=Path, default=tools.default_folder(), help="where to"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args(argv)
    act = tools.install if options.action == "install" else tools.status
    found = act(options.into)
    if options.json:
        print_json(
            [
                {"name": t.pin.name, "version": t.pin.version, "installed": t.installed}
                for t in found
            ]
        )
        return 0
    for tool in found:
        state = "installed" if tool.installed else "missing: llmpipe tools install"
        print(f"{tool.pin.name} {tool.pin.version}: {state}")
    return 0
