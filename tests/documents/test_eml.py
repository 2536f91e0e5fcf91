"""Messages: everything that a reader sees is read, and what is not read is listed."""

from __future__ import annotations

import pytest

from llmpipe.documents import eml

HEAD = "From: ann@example.org\nSubject: Pumps\nMIME-Version: 1.0\nContent-Type: "
PDF = "Content-Type: application/pdf; name=a.pdf\n\n%PDF"


def part(text: str, kind: str = "plain") -> str:
    """Return a part of a message."""
    return f"Content-Type: text/{kind}\n\n{text}"


def parts(kind: str, *inner: str, name: str = "b1") -> str:
    """Return a content type and the parts of a multipart message."""
    body = "".join(f"--{name}\n{one}\n" for one in inner)
    return f"multipart/{kind}; boundary={name}\n\n{body}--{name}--\n"


INNER = "From: bob@example.org\nSubject: Valves\n\nThe inner text."
UNREAD = "attachments not read: "


@pytest.mark.parametrize(
    ("content", "text", "remarks"),
    [
        ("text/plain; name=mail.txt\n\nA body.", "A body.", ()),
        ("message/rfc822\n\n" + INNER, "## Valves\n\nFrom: bob@example.org\n\nThe inner text.", ()),
        ("multipart/mixed\n\nA body.", "A body.", ()),
        ("multipart/mixed; boundary=no\n\n--b\n\nA body.", "--b\n\nA body.", ()),
        ("text/markdown\n\n## Valves\n\nA body.", "## Valves\n\nA body.", ()),
        ("text/calendar\n\nSUMMARY:Meeting", "SUMMARY:Meeting", ()),
        ("application/pdf\n\n%PDF", "", (f"{UNREAD}application/pdf",)),
        (parts("mixed", part("One."), part("A footer.")), "One.\n\nA footer.", ()),
        (parts("mixed", part("One."), PDF, part("<p>Two", "html")), "One.\n\nTwo", (f"{UNREAD}a.pdf",)),
        (parts("alternative", part("One."), part("<p>One.", "html")), "One.", ()),
        (
            parts("alternative", part("One."), part("<p><b>One.", "html"), part("X:1", "calendar")),
            "One.",
            (),
        ),
        (parts("alternative", part("SUMMARY:Meeting", "calendar")), "SUMMARY:Meeting", ()),
        (
            parts(
                "alternative",
                part("One. Two."),
                "Content-Type: "
                + parts("mixed", part("<p>One.", "html"), PDF, part("<p>Two.", "html"), name="b2"),
            ),
            "One.\n\nTwo.",
            (f"{UNREAD}a.pdf",),
        ),
        (parts("alternative", "\nThe text.", part("<img src=x>", "html")), "The text.", ()),
        (
            parts("alternative", "Content-Type: " + parts("mixed", part("One."), PDF, name="b2"), part("<p>One.", "html")),
            "One.",
            (f"{UNREAD}a.pdf",),
        ),
        (
            parts("report", part("Not sent."), "Content-Type: message/delivery-status\n\nStatus: 5.0.0"),
            "Not sent.",
            (f"{UNREAD}message/delivery-status",),
        ),
    ],
)  # fmt: skip
def test_all_that_a_reader_sees_is_read(content: str, text: str, remarks: tuple[str, ...]) -> None:
    """Whatever the parts contain, even if the sender's program wrote them wrongly."""
    found = eml.convert((HEAD + content).encode(), "a.eml")
    assert found.text.strip() == f"# Pumps\n\nFrom: ann@example.org\n\n{text}".strip()
    assert found.remarks == remarks


def test_messages_in_messages_are_read_however_deep() -> None:
    """Their headings stop at level six."""
    message = "Subject: Last\n\nThe innermost text."
    for level in range(9):
        message = f"Subject: At {level}\nContent-Type: message/rfc822\n\n{message}"
    found = eml.convert(message.encode(), "a.eml")
    assert found.text.rstrip().endswith("###### Last\n\n\nThe innermost text.")
    assert found.sections[-1].path[-1] == "Last"
