"""Whether a response is marked as cut, by the count of its tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmpipe.web.model.edits import EditedStream, edited
from llmpipe.web.model.unfinished import Unfinished


def response(written: int, total: int, *kinds: str) -> dict[str, Any]:
    """A response as llama.cpp gives it."""
    usage = {"input_tokens": total - written, "output_tokens": written, "total_tokens": total}
    output = [{"type": kind, "status": "completed"} for kind in kinds]
    return {"status": "completed", "completed_at": 3, "output": output, "usage": usage}


@pytest.mark.parametrize(
    ("limit", "written", "total", "status"),
    [
        (None, 90, 1023, "completed"),
        (None, 90, 1024, "incomplete"),
        (91, 90, 200, "completed"),
        (90, 90, 200, "incomplete"),
        (500, 90, 1024, "incomplete"),
    ],
)
def test_a_response_is_cut_at_its_limit_or_the_end_of_the_context(
    limit: int | None, written: int, total: int, status: str
) -> None:
    """Whole, and as the last event of a stream; only the last item was cut."""
    given = response(written, total, "reasoning", "message")
    whole = json.loads(edited(json.dumps(given).encode(), [Unfinished(limit, 1024)]))
    assert (whole["status"], whole["output"][-1]["status"]) == (status, status)
    assert whole["output"][0]["status"] == "completed"
    assert ("incomplete_details" in whole) is (status == "incomplete")
    event = {"type": "response.completed", "response": given}
    other = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    text = b"event: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
    stream = EditedStream([Unfinished(limit, 1024)])
    told = stream.feed(other + text[:30]) + stream.feed(text[30:]) + stream.close()
    first, last = told[: len(other)], told[len(other) :]
    assert first == other
    name, data = last.strip().split(b"\n")
    assert name == f"event: response.{status}".encode()
    assert json.loads(data[6:]) == {"type": f"response.{status}", "response": whole}


def test_a_cut_response_without_output() -> None:
    """Before the first text came there is no item to mark."""
    whole = Unfinished(1, 1024).of_reply(response(1, 9))
    assert (whole["status"], whole["output"]) == ("incomplete", [])


@pytest.mark.parametrize(("limit", "status"), [(90, "incomplete"), (91, "completed")])
def test_the_end_of_the_last_item_says_so_too(limit: int, status: str) -> None:
    """In a stream it comes before the response's; earlier items and the order stay as they are."""
    given = response(90, 200, "reasoning", "message")
    ends = [
        {"type": "response.output_item.done", "output_index": at, "item": item}
        for at, item in enumerate(given["output"])
    ]
    between = {"type": "response.output_text.done", "text": "a"}
    sent = [ends[0], between, ends[1], {"type": "response.completed", "response": given}]
    stream = EditedStream([Unfinished(limit, 1024)])
    parts = [
        b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in sent
    ]
    told = b"".join(map(stream.feed, parts)) + stream.close()
    events = [
        dict(line.split(b": ", 1) for line in e.split(b"\n")) for e in told.split(b"\n\n") if e
    ]
    got = [json.loads(event[b"data"]) for event in events]
    assert [event[b"event"].decode() for event in events] == [each["type"] for each in got]
    assert got[:2] == sent[:2]
    assert (got[2]["output_index"], got[2]["item"]["status"]) == (1, status)
    assert (got[3]["type"], len(got)) == (f"response.{status}", 4)


def test_an_item_before_an_error_is_not_lost() -> None:
    """Any event lets it go."""
    done = b'data: {"type": "response.output_item.done", "item": {}}\n\n'
    stream = EditedStream([Unfinished(1, 1024)])
    assert stream.feed(done) == b""
    assert stream.feed(b'data: {"error": {}}\n\n').startswith(done)
