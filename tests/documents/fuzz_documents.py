"""Feed damaged documents to the converters for a while: no traceback, no endless loop.

This is a separate program: ``python fuzz_documents.py SECONDS FOLDER SEED...``. Each seed is a file
or a folder of files. It is read unchanged first, then damaged again and again. Files that fail are
written to FOLDER. It prints the number of files tried for each suffix, and how many had text.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from llmpipe.documents.convert import FORMATS, Options, convert
from llmpipe.errors import LlmpipeError

MAX_SECONDS = 20
"""CPU seconds for one file of the sizes that are tried; most take a hundredth."""
LARGEST = 60_000
"""Bytes of the largest seed: small files are tried more often in the same time."""
BATCH = 20
"""Files that one process tries, so that a crash of the process ends no more than these."""

TOKENS = re.compile(rb"</?[A-Za-z][^<>]{0,80}>|[A-Za-z0-9_]+|\s+|.", re.DOTALL)
STRANGE = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\r", b"\x0c", b"\x1a",
    b"<", b">", b"&", b"&#0;", b"&#x110000;", b"]]>", b"<!--", b"-->", b"<![CDATA[", b'"', b"'", b"`",
    b"```\n", b"~~~", b"---\n", b"+++\n", b"| a | b |\n|--|--|\n", b"\\", b"{", b"}", b"[", b"](", b"$",
    b"-1", b"0", b"1e309", b"99999999999999999999", b"%s", b"\t", b"\n\n", b"=\n", b"#", b"* ", b".. ::",
]  # fmt: skip
"""What stands for something in one of the formats, or is no text."""


def damaged(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Return the bytes of a file with a few places changed; in a ZIP, inside its files."""
    if data.startswith(b"PK\x03\x04") and chance.random() < 0.9:
        return _within_archive(data, others, chance)
    change = chance.choice([_bytes_changed, _tokens_changed])
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        data = change(data, others, chance)
    return data


def _within_archive(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as seed, zipfile.ZipFile(written, "w") as target:
        names = seed.namelist()
        chosen = set(chance.sample(names, min(len(names), chance.choice([1, 1, 2]))))
        texts = [seed.read(name) for name in names if name.endswith((".xml", ".rels", "html"))]
        for name in names:
            content = seed.read(name)
            if name in chosen:
                how = chance.random()
                if how < 0.05:
                    continue
                content = b"" if how < 0.1 else _tokens_changed(content, texts or others, chance)
            target.writestr(name, content)
    return written.getvalue()


def _bytes_changed(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + int(chance.paretovariate(0.7)))
    other = chance.choice(others)
    start = chance.randrange(len(other) + 1)
    new = chance.choice(
        [
            b"",
            chance.randbytes(4),
            chance.choice(STRANGE),
            data[at:end] * 2,
            other[start : start + 200],
        ]
    )
    return data[:at] + new + data[end if chance.random() < 0.8 else at :]


def _tokens_changed(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Change, move, double or drop words, marks and tags."""
    tokens = TOKENS.findall(data)
    if not tokens:
        return chance.choice(STRANGE)
    for _ in range(chance.choice([1, 2, 5])):
        at = chance.randrange(len(tokens))
        end = at + int(chance.paretovariate(0.8))
        kind = chance.randrange(5)
        if kind == 0:
            del tokens[at : min(end, at + 2000)]
        elif kind == 1:
            tokens[at:at] = tokens[at : min(end, at + 2000)]
        elif kind == 2:
            tokens[at : at + 1] = [chance.choice(STRANGE)]
        elif kind == 3:
            tokens.insert(at, chance.choice(tokens or STRANGE))
        else:
            other = TOKENS.findall(chance.choice(others)[:20_000]) or STRANGE
            start = chance.randrange(len(other))
            tokens[at:at] = other[start : start + 20]
        if not tokens:
            break
    return b"".join(tokens)


def try_one(path: Path) -> bool:
    """Read a file as `ingest` does; return whether it has text.

    Raises:
        AssertionError: the result is not a valid document, or reading takes too long.
    """
    begun = time.process_time()
    try:
        found = convert(path, path.name, Options())
    except LlmpipeError as error:
        if not error.message:
            raise AssertionError("a refusal without a word") from error
        return False
    finally:
        seconds = time.process_time() - begun
        assert seconds < MAX_SECONDS, f"{seconds:.1f} s"
    for document in found:
        document.text.encode()
        parts = document.sections
        assert "".join(document.text[part.start : part.end] for part in parts) == document.text
    return any(document.text.strip() for document in found)


def in_child(work: Callable[[], None], seconds: float) -> str:
    """Run a function in its own process; return how it failed, or an empty string."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return f"status {status}" if status else ""
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "it did not end"


def fuzz(seconds: float, folder: Path, seeds: dict[str, list[bytes]], start: int) -> Counter[str]:
    """Try damaged files for some time, with a fair share for each suffix; count them by suffix."""
    tried: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    endings = sorted(seeds)
    number = start
    while time.monotonic() < deadline:
        ending = endings[number % len(endings)]
        chance = random.Random(number)
        path = folder / f"{number}{ending}"

        def work(ending: str = ending, chance: random.Random = chance, path: Path = path) -> None:
            for _ in range(BATCH):
                data = chance.choice(seeds[ending])
                path.write_bytes(damaged(data, seeds[ending], chance))
                try_one(path)

        if how := in_child(work, BATCH * MAX_SECONDS):
            print(f"{path.name}: {how}", file=sys.stderr, flush=True)
            tried["failed"] += 1
        else:
            path.unlink()
        tried[ending] += BATCH
        number += 1
    return tried


def seeds_of(paths: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the files with known suffixes that are not too large."""
    found: dict[str, list[bytes]] = {}
    for path in map(Path, paths):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in FORMATS and file.is_file() and 0 < file.stat().st_size <= LARGEST:
                found.setdefault(file.suffix, []).append(file.read_bytes())
    return found


if __name__ == "__main__":
    first = int(os.environ.get("FUZZ_START", "0"))
    total = fuzz(float(sys.argv[1]), Path(sys.argv[2]), seeds_of(sys.argv[3:]), first)
    print(json.dumps(total))
    sys.exit(bool(total["failed"]))
