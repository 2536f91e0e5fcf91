"""Count how often each word stands in a column of some rows.

The rows are read one by one; the counts of all words are held in memory. Words are what Python's
``str.split`` returns; nothing is done about punctuation. ``llmpipe serve`` answers ``GET /WORD`` with
the count of that word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec

from llmpipe.contracts import (
    Endpoint,
    EstimateContext,
    Estimates,
    FieldPath,
    Input,
    Needs,
    Output,
    Ports,
    Servable,
    ServeContext,
    ServedConfig,
    StageContext,
    StageDefaults,
    StageResult,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.needs import Given

BYTES_PER_SECOND = 20e6
"""Bytes of rows that are counted in a second, for the plan's estimate."""


class WordCountConfig(ServedConfig, frozen=True, kw_only=True):
    """Count the words of a column."""

    data: str
    """The rows: a stage or a file."""
    column: str
    """The column whose words are counted."""
    case: Literal["keep", "fold"] = "fold"
    """Whether Word and word are two words (keep) or one (fold)."""
    top: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many of the most frequent words to return; all by default."""


class WordCount(StageDefaults, Servable, Estimates):
    """The stage kind ``word_count``."""

    Config = WordCountConfig
    VERSION = 1
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: WordCountConfig) -> Ports:
        """Rows in, metrics out."""
        inputs = {"data": Input(("data",), config.data, ("records", "dataset"))}
        return Ports(inputs, {"counts": Output("metrics")}, default="counts")

    @staticmethod
    def problems(config: WordCountConfig) -> list[tuple[FieldPath, str]]:
        """Say what the types of the fields cannot say."""
        if config.column.strip() != config.column:
            return [(("column",), "begins or ends with a blank")]
        return []

    @staticmethod
    def estimate(
        config: WordCountConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        """Say how long the counting takes, where the size of the rows is known."""
        size = inputs["data"].size
        return Needs(seconds=None if size is None else size / BYTES_PER_SECOND)

    @staticmethod
    def run(ctx: StageContext[WordCountConfig]) -> StageResult:
        """Read the rows, count, and return the most frequent words.

        Raises:
            StageError: a row has no such column.
        """
        from llmpipe.formats.records import read_rows  # JSONL, JSON or CSV

        counts: Counter[str] = Counter()
        data = ctx.input("data")
        for number, (line, row) in enumerate(read_rows(data.path, data.label), 1):
            counts.update(_words(row, f"{data.label}:{line}", ctx.config))
            ctx.progress(number, None, "rows")
        found = dict(counts.most_common(ctx.config.top))
        metrics = {"words": counts.total(), "different": len(counts)}
        counted = write_json(ctx.out / "counts.json", {**metrics, "counts": found})
        return StageResult({"counts": counted}, metrics, f"{counts.total()} words")

    @staticmethod
    @contextmanager
    def serve(ctx: ServeContext[WordCountConfig]) -> Iterator[Endpoint]:
        """Answer with counts until the context ends."""
        counts = json.loads(ctx.output("counts").read_text("utf-8"))["counts"]
        try:
            server = ThreadingHTTPServer((ctx.host, ctx.port), _answering(counts, ctx.api_key))
        except OSError as error:
            message = f"cannot listen on {ctx.host}:{ctx.port}: {error.strerror}"
            raise StageError(message, hint="choose another port") from None
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://{ctx.host}:{server.server_port}"
            yield Endpoint(url, f"the count of a word at {url}/WORD")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _words(row: dict[str, Any], place: str, config: WordCountConfig) -> list[str]:
    if config.column not in row:
        raise StageError(
            f"{place}: the row has no column {config.column!r}", hint=f"it has: {', '.join(row)}"
        )
    text = str(row[config.column])
    return (text.casefold() if config.case == "fold" else text).split()


def _answering(counts: Mapping[str, int], api_key: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if api_key and self.headers.get("Authorization") != f"Bearer {api_key}":
                self.send_error(401)
                return
            word = unquote(self.path.removeprefix("/"))
            body = json.dumps({"word": word, "count": counts.get(word, 0)}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Write no line for each request."""

    return Handler
