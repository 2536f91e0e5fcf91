"""Messages (EML): who wrote what when, and the text; attachments are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

from llmpipe.documents import html, markdown, plain_tables
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, Heading, clean, one_line, sections_of
from llmpipe.documents.plain import Decoded, decode
from llmpipe.errors import StageError

HEADERS = ("From", "To", "Cc", "Date")

_UNREAD = re.compile(r"(?is)<(style|script|title)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>|&#?\w+;")
"""What is surely no word of a page; it is taken out to tell without reading the page."""
_ADDRESS = re.compile(r"https?://[^\s()]+")
_WORD = re.compile(r"\w+")


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
    """Give the text of a message; the formatted one where the plain one says much less, or none."""
    decoded = _part(message, "plain", label)
    plain = plain_tables.as_markdown(clean(decoded.text)).strip("\n")
    try:
        text, others = _formatted(message, label, plain)
    except StageError as error:
        if not plain:
            raise
        text, others = "", [f"the formatted text is not read: {error.message}"]
    remarks += [*(() if text else decoded.remarks), *others]
    return (text, list(markdown.headings(text))) if text else (plain, [])


def _formatted(message: EmailMessage, label: str, plain: str) -> tuple[str, list[str]]:
    """Give the formatted text and what to say of it; it is empty where the plain one will do."""
    page = _part(message, "html", label)
    if plain and not _says_more(_UNREAD.sub(" ", page.text), plain):
        return "", []
    text = html.of_text(page.text, label).text
    if not plain:
        return text, [*page.remarks]
    if not _says_more(text, plain):
        return "", []
    remark = "the formatted text is read: the plain one lacks most of its words"
    return text, [*page.remarks, remark]


def _part(message: EmailMessage, kind: str, label: str) -> Decoded:
    part = message.get_body((kind,))
    data = part.get_payload(decode=True) if part is not None else None
    if part is None or not isinstance(data, bytes):
        return Decoded("")
    return decode(data, label, str(part.get_content_charset() or ""))


def _says_more(formatted: str, plain: str) -> bool:
    """Tell whether a text has more words than another one, most of them not in there."""
    more, less = (_WORD.findall(_ADDRESS.sub(" ", text.casefold())) for text in (formatted, plain))
    words = set(more)
    is_other = 2 * len(words.difference(less)) > len(words)
    return len(more) > 2 * len(less) or (len(more) > len(less) and is_other)


def _attached(part: EmailMessage) -> str:
    if part.get_content_type() == "message/rfc822":
        return ""
    return one_line(part.get_filename() or part.get_content_type())
