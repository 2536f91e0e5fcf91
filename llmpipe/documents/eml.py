"""Convert mail messages (EML): the headers and the text; attachments are reported by name.

All displayed text is read, including messages inside messages. A damaged message, for example
without the boundaries that it declares, is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import NamedTuple

from llmpipe.documents import html, markdown, plain_tables
from llmpipe.documents.model import Scalar
from llmpipe.documents.parts import Converted, Heading, clean, one_line, sections_of
from llmpipe.documents.plain import Decoded, decode
from llmpipe.errors import StageError

HEADERS = ("From", "To", "Cc", "Date")

_UNREAD = re.compile(r"(?is)<(style|script|title)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>|&#?\w+;")
"""Parts of an HTML page that are certainly not words; removing them is cheaper than parsing."""
_ADDRESS = re.compile(r"https?://[^\s()]+")
_WORD = re.compile(r"\w+")


def convert(data: bytes, label: str) -> Converted:
    """Convert a message and the messages that it forwards.

    Raises:
        StageError: its text cannot be decoded.
    """
    message = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(message, EmailMessage)
    texts: list[str] = []
    headings: list[Heading] = []
    unread: list[str] = []
    remarks: list[str] = []
    place = 0
    for level, one, parts in _messages(message, 1):
        subject = one_line(_header(one, "Subject")) or "(no subject)"
        lines = [f"{name}: {value}" for name in HEADERS if (value := _header(one, name))]
        head = "\n".join([f"{'#' * level} {subject}", "", *lines]) + "\n\n"
        headings.append(Heading(level, subject, place))
        texts.append(head)
        place += len(head)
        for body in (part for part in parts if isinstance(part, _Body)):
            text, inner = _read(body, label, remarks)
            headings += [
                heading._replace(level=min(level + heading.level, 6), start=place + heading.start)
                for heading in inner
            ]
            texts.append(f"{text}\n\n")
            place += len(texts[-1])
        unread += [part for part in parts if isinstance(part, str)]
    whole = "".join(texts)
    metadata: dict[str, Scalar] = {
        name.lower(): value for name in ("From", "To", "Date") if (value := _header(message, name))
    }
    if unread:
        remarks.append(f"attachments not read: {', '.join(unread)}")
    title = one_line(_header(message, "Subject"))
    return Converted(whole, sections_of(whole, headings), title, (), metadata, tuple(remarks))


class _Body(NamedTuple):
    """A text of a message, in plain form, formatted form or both."""

    plain: EmailMessage | None
    formatted: EmailMessage | None = None


_Part = _Body | EmailMessage | str
"""A text, a nested message, or the name of a part that is not read."""


def _messages(message: EmailMessage, level: int) -> Iterator[tuple[int, EmailMessage, list[_Part]]]:
    """Yield a message and those inside it, each with its level and parts."""
    is_text = message.get_content_maintype() == "text"
    parts: list[_Part] = [_body(message)] if is_text else list(_parts(message))
    yield level, message, parts
    for part in parts:
        if isinstance(part, EmailMessage):
            yield from _messages(part, min(level + 1, 6))


def _parts(part: EmailMessage) -> Iterator[_Part]:
    """Yield the contents of a part, as mail programs show them."""
    kind, payload = part.get_content_type(), part.get_payload()
    main = part.get_content_maintype()
    inner = (
        [one for one in payload if isinstance(one, EmailMessage)]
        if isinstance(payload, list)
        else []
    )
    if kind == "message/rfc822" and inner:
        yield inner[0]
    elif kind == "multipart/alternative" and inner:
        yield from _chosen([list(_parts(one)) for one in inner])
    elif main == "multipart" and inner:
        for one in inner:
            yield from _parts(one)
    elif main == "text" and not part.is_attachment() and not part.get_filename():
        yield _body(part)
    elif main == "multipart" and part.get_payload():  # its boundary is missing or wrong
        yield _Body(part)
    elif main != "multipart":
        yield one_line(part.get_filename() or kind)


def _body(part: EmailMessage) -> _Body:
    return _Body(None, part) if part.get_content_type() == "text/html" else _Body(part)


def _chosen(forms: list[list[_Part]]) -> list[_Part]:
    """Return the parts to read from alternative forms of the same text; the last is preferred."""
    texts = [[part for part in form if isinstance(part, _Body)] for form in forms]
    best = max(range(len(forms)), key=lambda place: (_rank(texts[place]), place))
    chosen = forms[best]
    plain = next((text for text in texts if text and all(_is_plain(body) for body in text)), None)
    if plain and len(plain) == len(texts[best]) == 1 and not _is_plain(texts[best][0]):
        both = _Body(plain[0].plain, texts[best][0].formatted)
        chosen = [both if isinstance(part, _Body) else part for part in chosen]
    others = (part for form in forms if form is not forms[best] for part in form)
    return [*chosen, *(part for part in others if not isinstance(part, _Body))]


def _is_plain(body: _Body) -> bool:
    return body.plain is not None  # a message without headers counts as false


def _rank(texts: list[_Body]) -> int:
    """Rank displayed text above other text (such as calendars), and that above none."""
    kinds = {part.get_content_type() for text in texts for part in text if part is not None}
    return 2 if kinds & {"text/plain", "text/html"} else min(len(kinds), 1)


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = message.get(name, "")
    except Exception:  # the header parser fails on some malformed headers
        return ""
    when = getattr(value, "datetime", None) if name == "Date" else None
    if when is not None:
        return str(when.isoformat(" ", "minutes"))
    return one_line(str(value))


def _read(body: _Body, label: str, remarks: list[str]) -> tuple[str, list[Heading]]:
    """Return a text as Markdown, formatted only if the plain form is missing or says much less."""
    decoded = _decoded(body.plain, label)
    plain = plain_tables.as_markdown(clean(decoded.text)).strip("\n")
    try:
        text, others = _formatted(body, label, plain)
    except StageError as error:
        if not plain:
            raise
        text, others = "", [f"the formatted text is not read: {error.message}"]
    remarks += [*(() if text else decoded.remarks), *others]
    kind = body.plain.get_content_type() if body.plain is not None else ""
    is_marked = text or kind == "text/markdown"
    text = (text or plain).strip("\n")
    return text, list(markdown.headings(text)) if is_marked else []


def _formatted(body: _Body, label: str, plain: str) -> tuple[str, list[str]]:
    """Return the formatted text and remarks; empty if the plain text is enough."""
    page = _decoded(body.formatted, label)
    if plain and not _says_more(_UNREAD.sub(" ", page.text), plain):
        return "", []
    text = html.of_text(page.text, label).text
    if not plain:
        return text, [*page.remarks]
    if not _says_more(text, plain):
        return "", []
    remark = "the formatted text is read: the plain one lacks most of its words"
    return text, [*page.remarks, remark]


def _decoded(part: EmailMessage | None, label: str) -> Decoded:
    if part is None:
        return Decoded("")
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return Decoded("")
    return decode(data, label, str(part.get_content_charset() or ""))


def _says_more(formatted: str, plain: str) -> bool:
    """Return whether a text has more words than another, most of them not in the other."""
    more, less = (_WORD.findall(_ADDRESS.sub(" ", text.casefold())) for text in (formatted, plain))
    words = set(more)
    is_other = 2 * len(words.difference(less)) > len(words)
    return len(more) > 2 * len(less) or (len(more) > len(less) and is_other)
