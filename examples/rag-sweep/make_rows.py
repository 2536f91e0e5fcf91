"""Make rows of questions and answers of FAQ pages in reStructuredText: python make_rows.py FOLDER.

A title that asks something is a question; what stands below it, up to the next such title, is its
answer. A title is a line with a line of ``-`` or ``=`` of its length below it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TITLE = re.compile(r"^(?P<title>\S.*)\n(?P<line>[-=~^]{3,})\n", re.MULTILINE)


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Give the questions of a page, each with its answer."""
    titles = [m for m in TITLE.finditer(text) if len(m["line"]) >= len(m["title"])]
    asked = [m for m in titles if m["title"].endswith("?")]
    ends = [m.start() for m in asked[1:]] + [len(text)]
    for match, end in zip(asked, ends, strict=True):
        yield match["title"], text[match.end() : end].strip()


def main() -> None:
    """Print the rows of every page of a folder."""
    for page in sorted(Path(sys.argv[1]).glob("*.rst")):
        for question, answer in pairs(page.read_text("utf-8")):
            print(json.dumps({"question": question, "answer": answer}))


if __name__ == "__main__":
    main()
