"""Make the rows of this example: freight tickets in words, and the JSON that stands for each.

    python make_rows.py TRAIN.jsonl TEST.jsonl [--train 240] [--test 40] [--seed 0]

The same numbers give the same files, byte for byte, on any machine. Every second test row names a
city that no training row has, and no ticket stands in both files. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

CITIES = [
    "Madrid",
    "Berlin",
    "Lisbon",
    "Vienna",
    "Oslo",
    "Prague",
    "Dublin",
    "Athens",
    "Warsaw",
    "Geneva",
    "Helsinki",
    "Milan",
    "Porto",
    "Hamburg",
    "Lyon",
    "Seville",
    "Krakow",
    "Bergen",
    "Turin",
    "Leipzig",
    "Basel",
    "Valencia",
    "Utrecht",
    "Bilbao",
    "Munich",
    "Toulouse",
    "Gdansk",
    "Malmo",
    "Bologna",
    "Cork",
    "Zurich",
    "Naples",
    "Rotterdam",
    "Dresden",
    "Nice",
    "Aarhus",
]
UNSEEN_CITIES = [
    "Budapest",
    "Stockholm",
    "Bremen",
    "Marseille",
    "Granada",
    "Florence",
    "Tampere",
    "Salzburg",
    "Antwerp",
    "Glasgow",
    "Ljubljana",
    "Poznan",
    "Bordeaux",
    "Odense",
    "Trieste",
    "Limerick",
    "Malaga",
    "Nantes",
    "Stuttgart",
    "Tallinn",
]
"""Cities that only test rows name."""

SENDERS = [
    "Anna",
    "Omar",
    "Li",
    "Sofia",
    "Jonas",
    "Priya",
    "Marek",
    "Elena",
    "Kofi",
    "Ingrid",
    "Paulo",
    "Yuki",
]
WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]

TICKETS = (
    "{boxes} boxes to {city}, {damaged} are damaged.",
    "Delivered to {city}: {boxes} boxes, {damaged} of them damaged.",
    "{sender} here. Our {city} customer got {boxes} boxes and says {damaged} are broken.",
    "Hello, we counted {boxes} boxes in {city}. {damaged} arrived damaged. Thanks, {sender}",
    "Of {boxes} boxes for {city}, {damaged} were crushed on the way.",
    "{city} depot reports {damaged} damaged out of {boxes} boxes.",
    "Please note: {damaged} damaged boxes in {city}, {boxes} shipped in all. {sender}",
    "The truck for {city} carried {boxes} boxes; {damaged} came wet.",
    "Shipment of {boxes} boxes reached {city} today and {damaged} cannot be sold.",
    "{sender} signed for {boxes} boxes in {city}, with {damaged} torn open.",
)
WHOLE = (
    "{boxes} boxes to {city}, none damaged.",
    "All {boxes} boxes reached {city} in good order. {sender}",
    "{sender} here. Our {city} customer got {boxes} boxes and is happy with all of them.",
    "The {city} depot counted {boxes} boxes, no damage.",
)
"""Tickets without damage."""


def ticket(rng: random.Random, cities: list[str]) -> dict[str, str]:
    """Make one row: a ticket in words and its answer."""
    city, sender = rng.choice(cities), rng.choice(SENDERS)
    boxes = rng.randint(2, 60)
    damaged = 0 if rng.random() < 0.2 else rng.randint(1, min(boxes, 20))
    form = rng.choice(TICKETS if damaged else WHOLE)
    text = form.format(
        city=city, sender=sender, boxes=spelt(rng, boxes), damaged=spelt(rng, damaged)
    )
    answer = {"city": city, "boxes": boxes, "damaged": damaged}
    return {"ticket": text[0].upper() + text[1:], "json": json.dumps(answer)}


def spelt(rng: random.Random, number: int) -> str:
    """Write a number in digits, or half of the time, up to twenty, as a word."""
    return WORDS[number] if number < len(WORDS) and rng.random() < 0.5 else str(number)


def make(train: int, test: int, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Make both sets; a ticket that exists already is made again."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    while len(rows) < train + test:
        held_out = len(rows) - train
        row = ticket(rng, UNSEEN_CITIES if held_out >= 0 and held_out % 2 else CITIES)
        if row["ticket"] not in seen:
            seen.add(row["ticket"])
            rows.append(row)
    return rows[:train], rows[train:]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train_file", type=Path)
    parser.add_argument("test_file", type=Path)
    parser.add_argument("--train", type=int, default=240, help="training rows")
    parser.add_argument("--test", type=int, default=40, help="test rows")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train, test = make(arguments.train, arguments.test, arguments.seed)
    write(arguments.train_file, train)
    write(arguments.test_file, test)


if __name__ == "__main__":
    main()
