"""Make rows of questions and answers of FAQ pages in reStructuredText: python make_rows.py FOLDER.

A title that asks something is a question; what stands below it is its answer, up to the next title
that asks, too, or is of the same level or a higher one. A title is a line with a line of one sign
(``-``, ``=``, ``~`` or ``^``) of its length below it; the sign that a page has first is its highest
level.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TITLE = re.compile(r"^(?P<title>\S.*)\n(?P<sign>[-=~^])(?P=sign){2,}\n", re.MULTILINE)


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Return the questions of a page, each with its answer."""
    titles = [m for m in TITLE.finditer(text) if m.end() - m.start("sign") > len(m["title"])]
    signs = list(dict.fromkeys(m["sign"] for m in titles))
    for number, title in enumerate(titles):
        if asks(title):
            level = signs.index(title["sign"])
            ends = (
                later.start()
                for later in titles[number + 1 :]
                if asks(later) or signs.index(later["sign"]) <= level
            )
            yield title["title"], text[title.end() : next(ends, len(text))].strip()


def asks(title: re.Match[str]) -> bool:
    """Return whether a title is a question."""
    return title["title"].endswith("?")


def main() -> None:
    """Print the rows of every page of a folder."""
    for page in sorted(Path(sys.argv[1]).glob("*.rst")):
        for question, answer in pairs(page.read_text("utf-8")):
            print(json.dumps({"question": question, "answer": answer}))


if __name__ == "__main__":
    main()
