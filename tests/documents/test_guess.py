"""Encodings of short texts: the right one, or a guess with a low probability."""

from __future__ import annotations

import pytest
from document_files import read_or_told
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.guess import guess
from llmpipe.documents.html import convert as page
from llmpipe.documents.plain import convert

TEXTS = {
    "cp1252": ["Preis: 5 €", "5 €", "Größe", "España está aquí", "El niño comió piña", "déjà vu",
               "Öffnungszeiten: Montag – Freitag", "“Hello”, she said – it’s 5 €", "Fee: £40",
               "Português não é fácil", "Ærø er en ø", "Año 2024: 40 €", "ÜBER", "¿Qué?", "Straße"],
    "cp1250": ["Zażółć gęślą jaźń", "Cena wynosi 5 zł", "Łódź", "książka jest na stole", "őszi szél",
               "Příliš žluťoučký kůň", "cena je 5 Kč včetně", "Opłata wynosi 40 złotych"],
    "cp1254": ["İzmir güzel şehir", "Türkçe çok güzel", "ağaç ve çiçek"],
    "cp1251": ["Привет, мир", "Цена: 40 рублей", "Москва", "Київ — столиця"],
    "koi8-r": ["Привет, мир", "Цена: 40 рублей"],
    "cp866": ["Привет, мир"],
    "cp1253": ["Καλημέρα κόσμε", "Η τιμή είναι 40"],
    "cp1255": ["שלום עולם"],
    "cp1256": ["مرحبا بالعالم", "السعر هو 40"],
    "cp874": ["สวัสดีชาวโลก"],
    "cp932": ["こんにちは世界", "価格は40円です"],
    "euc_jp": ["こんにちは世界", "価格は40円です"],
    "gb18030": ["你好，世界", "价格是40元", "中文文本"],
    "big5": ["你好，世界", "價格是40元"],
    "cp949": ["안녕하세요 세계", "가격은 40원입니다"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "text"), [(encoding, text) for encoding, texts in TEXTS.items() for text in texts]
)
def test_a_few_words_tell_the_encoding(encoding, text):
    """Letters are where letters belong; a remark has the encoding and its probability."""
    found = convert(text.encode(encoding), "a.txt")
    assert found.text == text
    (remark,) = found.remarks
    assert remark.startswith("neither UTF-8 nor marked as anything else: read as ")
    assert "% sure" in remark


SIGNS = [
    "20 °C", "20°C/68°F", "5 £", "£5–£10", "3 × 5", "3×5 cm", "5 m²", "10 m³/h", "10³", "x²", "5µg", "±5 %",
    "½ cup", "1º piso", "5¢", "¥500", "Acme®", "Brand™", "§ 5", "12 ‰", "(25 °C)", "20°–25°", "« so »", "8 ÷ 2",
]  # fmt: skip
WESTERN = [
    "",
    "Der Preis für Öl",
    "Prix de la pièce à l’hôtel",
    "Habitación pequeña",
    "Håkan",
    "id;price",
]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("words", WESTERN)
def test_signs_beside_ascii_are_western(sign, words):
    """A sign in its usual place is not a letter of another alphabet, and gives no certainty."""
    for text in (f"{words} {sign}", f"{sign} {words}", f"{sign}\n" * 20):
        found = guess(text.encode("cp1252"))
        assert (found.encoding, text) == ("cp1252", text)
        assert found.sure < 0.97 if words else found.sure <= 0.6


@given(st.lists(st.sampled_from([*"abc 5,\n", *map(chr, range(0x80, 0x100))]), max_size=30))
def test_few_bytes_are_never_wide(letters):
    """UTF-16 and UTF-32 are recognized by marks or zeros, not by chance; few bytes say little."""
    data = "".join(letters).encode("latin-1")
    found = read_or_told(convert, data, "a.txt")
    for remark in () if isinstance(found, str) else found.remarks:
        assert "utf_" not in remark
        assert "99% sure" not in remark or sum(byte > 127 for byte in data) > 20


@given(st.binary(max_size=60))
def test_any_bytes_have_a_guess_or_none(data):
    """A guess decodes the bytes, and its probability is between 0 and 1."""
    found = guess(data)
    if found is not None:
        data.decode(found.encoding)
        assert 0 <= found.sure < 1


def test_the_language_of_a_page_counts():
    """Letters that fit two languages are read in the page's own."""
    html = "<html lang=pl><p>będę"
    assert page(html.encode("cp1250"), "a.html").text == "będę"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("# -*- coding: koi8-r -*-\nда\n".encode("koi8-r"), "да"),
        ("x\n# vim: set fileencoding=cp1250 :\nbędę\n".encode("cp1250"), "będę"),
        ("# coding: latin-1\n5 €\n".encode("cp1252"), "5 €"),
        ("# coding: iso-2022-jp\n価格\n".encode("iso-2022-jp"), "価格"),
        ("# coding: koi8-r\nGrüße".encode(), "Grüße"),
    ],
)
def test_what_a_text_declares(data, text):
    """Editors' lines count if the text is not UTF-8; Latin-1 means what it means in browsers."""
    found = convert(data, "a.txt")
    assert text in found.text
    assert not found.remarks


def test_damaged_utf_8_stays_utf_8():
    """A truncated character does not change how all others are decoded."""
    found = convert("Größe über fünf Füße, schön".encode() + b"\xc3", "a.txt")
    assert found.text == "Größe über fünf Füße, schön\ufffd"
    assert "damaged" in found.remarks[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark(encoding):
    """Every other byte of it is 0; this differs from a binary file, and is reported."""
    found = convert("Preis: fünf €, und mehr".encode(encoding), "a.txt")
    assert found.text == "Preis: fünf €, und mehr"
    assert encoding in found.remarks[0]
