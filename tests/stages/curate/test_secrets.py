"""Secrets in rows: found wherever they stand, written nowhere, dropped or redacted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate
from llmpipe.stages.curate.redaction import Found, covered, redacted, texts_in
from llmpipe.stages.curate.secrets import SecretFinder
from llmpipe.stages.curate.steps import SECRETS
from llmpipe.testing import Done, run_stage

# Put together here, so that no scanner takes this file for a leak.
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA " + "PRIVATE KEY-----"
EXAMPLES = {
    "anthropic_key": "sk-" + "ant-api03-" + "aB3_" * 12,
    "aws_key": "AKI" + "AABCDEFGHIJKLMNOP",
    "github_token": "gh" + "p_" + "a1B2" * 9,
    "gitlab_token": "gl" + "pat-" + "a1B2" * 5,
    "google_key": "AI" + "za" + "a1B2_" * 7,
    "huggingface_token": "h" + "f_" + "aB" * 17,
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
    "npm_token": "np" + "m_" + "a1B2" * 9,
    "openai_key": "s" + "k-" + "a1B2c" * 4 + "T3Blbk" + "FJ" + "a1B2c" * 4,
    "private_key": KEY,
    "slack_token": "xo" + "xb-1234567890-1234567890-a1B2c3D4e5",
    "stripe_key": "sk_" + "live_" + "a1B2c3" * 4,
}


def curate(folder: Path, rows: list[Any], **step: Any) -> tuple[Done, list[dict[str, Any]]]:
    """Run the step over rows and one without secrets; return what it made, and the rejects."""
    write_rows(folder / "rows.jsonl", [*rows, {"text": "The key of the old town."}])
    fields = {"data": "rows.jsonl", "steps": [{"step": "secrets", **step}]}
    done = run_stage(Curate, fields, folder)
    return done, [json.loads(line) for line in done.outputs["rejects"].read_text().splitlines()]


@pytest.mark.parametrize(("kind", "secret"), EXAMPLES.items())
def test_a_secret_is_found_and_not_written(kind: str, secret: str, tmp_path: Path) -> None:
    """The row is dropped, and has the name of the kind where the secret was."""
    done, rejects = curate(tmp_path, [{"text": f"Use `{secret}` here,\nand '{secret}' there."}])
    assert done.metrics["dropped"] == {"secret": 1}
    assert done.metrics["steps"][0]["rows_by_kind"] == {kind: 1}
    assert rejects[0]["reason"] == f"has {kind}"
    assert f"[{kind}]" in rejects[0]["row"]["text"]
    written = b"".join(path.read_bytes() for path in done.outputs.values())
    for line in secret.splitlines():
        assert line.encode() not in written


@pytest.mark.parametrize(
    ("text", "redacted_text"),
    [
        ("redis://:" + "Zr8kQw12" + "@host/0", "redis://:[basic_auth]@host/0"),
        ("postgres://app:" + "Zr8#kQw12" + "@host", "postgres://app:[basic_auth]@host"),
        ("AWS_SECRET_ACCESS_KEY=" + "aB3/" * 10, "AWS_SECRET_ACCESS_KEY=[aws_key]"),
        ('{"aws_secret": "' + "aB3/" * 10 + '"}', '{"aws_secret": "[aws_key]"}'),
        ("a " + KEY[:31] + " begins it. " + "Prose follows. " * 9, None),
        (KEY[:31] + "\n" + "QUJD" * 16 + "\n" + "QUJD" * 16 + "\nProse.", "[private_key]Prose."),
        (KEY[:31] + "\\n" + "QUJD" * 16 + "\\n", "[private_key]"),
    ],
)
def test_the_whole_secret_and_nothing_else(text: str, redacted_text: str | None) -> None:
    """Passwords without a user, secrets behind their names, keys that are cut, and prose."""
    found = covered(text, SecretFinder(SECRETS).find(text))
    assert found == (text if redacted_text is None else redacted_text)


def test_a_password_in_an_address_is_redacted(tmp_path: Path) -> None:
    """The rest of the row stays, with its provenance; the user's name is not a secret."""
    at = "postgres://app:" + "hunter2hunter2" + "@db.example/town"
    done, rejects = curate(tmp_path, [{"text": f"Connect to {at}."}], action="redact")
    rows = [json.loads(line) for line in done.outputs["rows"].read_text().splitlines()]
    assert rows[0]["text"] == "Connect to postgres://app:[basic_auth]@db.example/town."
    assert rows[0]["llmpipe_provenance"]["id"]
    assert (rejects, done.metrics["kept"]) == ([], 2)
    assert done.metrics["steps"][0]["redacted"] == 1
    assert done.summary.endswith("1 were redacted")


def test_later_steps_read_the_redacted_row(tmp_path: Path) -> None:
    """Two rows that differ in a token alone are duplicates without it."""
    text = "Sign in to the town's archive with the token {} and read the plans of the old bridge."
    rows = [{"text": text.format(EXAMPLES["github_token"][:-1] + end)} for end in "XY"]
    write_rows(tmp_path / "rows.jsonl", rows)
    steps = [{"step": "secrets", "action": "redact"}, {"step": "near_duplicates"}]
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": steps}, tmp_path)
    assert done.metrics["dropped"] == {"duplicate": 1}


def test_secrets_are_found_in_tool_calls(tmp_path: Path) -> None:
    """Wherever a text stands in a row."""
    call = {"name": "push", "arguments": json.dumps({"token": EXAMPLES["github_token"]})}
    turns = [
        {"role": "user", "content": "Push."},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "done"}, {"role": "assistant", "content": "Pushed."},
    ]  # fmt: skip
    done, _ = curate(tmp_path, [{"messages": turns}], action="redact")
    assert '{\\"token\\": \\"[github_token]\\"}' in done.outputs["rows"].read_text()


def test_ordinary_text_and_hashes_are_no_secrets(tmp_path: Path) -> None:
    """Nor are names of variables, digests, UUIDs, addresses and the times of day."""
    texts = [
        "password = os.environ['TOKEN']", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "123e4567-e89b-12d3-a456-426614174000", "http://user@host:80/a:b", "at 10:20 and 11:30",
        "mail: town@hall.example", "http://app:password@host/", "http://app:${TOKEN}@host/",
        "to: ann:bob@hall.example", "-----BEGIN PUBLIC KEY-----", "sk-learn", "hf_hub_download(x)",
    ]  # fmt: skip
    done, rejects = curate(tmp_path, [{"text": text} for text in texts])
    assert rejects == []
    assert done.metrics["kept"] == len(texts) + 1


def test_only_the_named_kinds_are_looked_for(tmp_path: Path) -> None:
    """A kind that is left out stays as it is."""
    rows = [{"text": EXAMPLES[kind]} for kind in ("jwt", "stripe_key")]
    done, rejects = curate(tmp_path, rows, kinds=["jwt"])
    assert [reject["line"] for reject in rejects] == [1]
    assert EXAMPLES["stripe_key"] in done.outputs["rows"].read_text()
    assert set(EXAMPLES) < set(SECRETS)


@given(st.text(), st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5))))
def test_nothing_of_what_is_covered_is_left(text: str, places: list[tuple[int, int]]) -> None:
    """Whatever overlaps; all that is not covered stays, in its order."""
    found = [Found(s, s + n, "x") for s, n in places if s + n <= len(text)]
    hidden = {at for start, end, _ in found for at in range(start, end)}
    left = "".join(letter for at, letter in enumerate(text) if at not in hidden)
    assert covered(text, found).replace("[x]", "") == left.replace("[x]", "")


def test_names_of_columns_and_provenance_stay() -> None:
    """Only values are looked at."""
    row = {"a": ["b", {"c": "b"}], "b": 1, "llmpipe_provenance": {"id": "b"}}
    assert [*texts_in(row)] == ["b", "b"]
    assert redacted(row, lambda text: [Found(0, 1, "k")]) == {
        "a": ["[k]", {"c": "[k]"}], "b": 1, "llmpipe_provenance": {"id": "b"},
    }  # fmt: skip
