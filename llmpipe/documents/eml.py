"""Messages (EML): who wrote what when, and the text; attachments are named."""

from __future__ import annotations

from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

from llmpipe.documents import html, markdown
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, Heading, clean, one_line, sections_of
from llmpipe.documents.plain import decode

HEADERS = ("From", "To", "Cc", "Date")


def convert(data: bytes, label: str) -> Converted:
    """Read a message and those that it forwards.

    Raises:
        StageError: its text is no text.
    """
    message = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(message, EmailMessage)
    texts: list[str] = []
    headings: list[Heading] = []
    attached: list[str] = []
    remarks: list[str] = []
    place = 0
    for level, one in _messages(message, 1):
        subject = one_line(_header(one, "Subject")) or "(no subject)"
        lines = [f"{name}: {value}" for name in HEADERS if (value := _header(one, name))]
        body, inner = _body(one, label, remarks)
        head = "\n".join([f"{'#' * level} {subject}", "", *lines]) + "\n\n"
        headings.append(Heading(level, subject, place))
        headings += [
            heading._replace(
                level=min(level + heading.level, 6), start=place + len(head) + heading.start
            )
            for heading in inner
        ]
        texts.append(f"{head}{body.strip(chr(10))}\n\n")
        place += len(texts[-1])
        attached += [name for part in one.iter_attachments() if (name := _attached(part))]
    whole = "".join(texts)
    metadata: dict[str, Scalar] = {
        name.lower(): value for name in ("From", "To", "Date") if (value := _header(message, name))
    }
    if attached:
        remarks.append(f"attachments that are not read: {', '.join(attached)}")
    title = one_line(_header(message, "Subject"))
    return Converted(whole, sections_of(whole, headings), title, (), metadata, tuple(remarks))


def _messages(message: EmailMessage, level: int) -> Iterator[tuple[int, EmailMessage]]:
    yield level, message
    for part in message.iter_attachments():
        if part.get_content_type() == "message/rfc822" and level < 6:
            inner = part.get_payload(0)
            if isinstance(inner, EmailMessage):
                yield from _messages(inner, level + 1)


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message.get(name, "")
    except Exception:  # the parser of headers fails on some that are broken
        return ""
    when = getattr(value, "datetime", None) if name == "Date" else None
    if when is not None:
        return str(when.isoformat(" ", "minutes"))
    return one_line(str(value))


def _body(message: EmailMessage, label: str, remarks: list[str]) -> tuple[str, list[Heading]]:
    """Give the text of a message; formatted text only where there is no plain one."""
    part = message.get_body(("plain", "html"))
    if part is None:
        return "", []
    data = part.get_payload(decode=True)
    decoded = decode(
        data if isinstance(data, bytes) else b"", label, str(part.get_content_charset() or "")
    )
    remarks += decoded.remarks
    if part.get_content_type() == "text/html":
        text = html.of_text(decoded.text, label).text
        return text, list(markdown.headings(text))
    return clean(decoded.text).strip("\n"), []


def _attached(part: EmailMessage) -> str:
    if part.get_content_type() == "message/rfc822":
        return ""
    return one_line(part.get_filename() or part.get_content_type())
