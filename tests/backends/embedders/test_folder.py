"""What a model folder says of itself: the longest text, pooling, prompts, and its tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llmpipe.backends.embedders.folder import count_tokens, load_tokenizer, read_folder
from llmpipe.errors import StageError


@pytest.fixture
def folder(tmp_path: Path, minilm: Path) -> Path:
    """MiniLM's folder without its weights, to be changed."""
    shutil.copytree(minilm, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "m"


def write(file: Path, value: object) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(value))


def test_minilm_says_what_it_is(minilm: Path) -> None:
    """The real folder, as its model card has it."""
    found = read_folder(minilm)
    assert (found.max_tokens, found.dimension, found.pooling) == (256, 384, "mean")
    assert (found.normalizes, found.plain) == (True, True)
    assert (found.passage_prompt, found.query_prompt) == ("", "")


def test_a_plain_encoder_is_pooled_by_the_mean(folder: Path) -> None:
    """Without modules.json and its companions the tokenizer and the config tell what they know."""
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    found = read_folder(folder)
    assert (found.max_tokens, found.dimension, found.pooling) == (512, 384, "mean")
    assert not found.normalizes


@pytest.mark.parametrize(
    ("pooling", "expected", "dimension", "plain"),
    [
        ({"pooling_mode_cls_token": True, "word_embedding_dimension": 384}, "cls", 384, True),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 384}, "lasttoken", 384, True),
        ({"pooling_mode": ["mean", "max"], "embedding_dimension": 384}, "unknown", 768, True),
        ({"pooling_mode": "mean", "include_prompt": False}, "mean", 384, False),
    ],
)
def test_ways_of_pooling(
    folder: Path, pooling: dict[str, object], expected: str, dimension: int, plain: bool
) -> None:
    """Old and new spellings, two ways at once, and a prompt that is not pooled."""
    write(folder / "1_Pooling" / "config.json", pooling)
    found = read_folder(folder)
    assert (found.pooling, found.dimension, found.plain) == (expected, dimension, plain)


def test_prompts_of_a_model(folder: Path) -> None:
    """The names that sentence-transformers looks for; a default stands in for what is missing."""
    file = folder / "config_sentence_transformers.json"
    write(file, {"prompts": {"query": "query: ", "passage": "passage: "}})
    assert read_folder(folder).passage_prompt == "passage: "
    assert read_folder(folder).query_prompt == "query: "
    write(file, {"prompts": {"x": "x: "}, "default_prompt_name": "x"})
    assert (read_folder(folder).passage_prompt, read_folder(folder).query_prompt) == ("x: ", "x: ")
    write(file, {"prompts": {"x": "x: "}, "default_prompt_name": "y"})
    with pytest.raises(StageError, match="names the prompt 'y' as its default and has no such"):
        read_folder(folder)


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    """No model, no limit, no tokenizer, broken JSON: each is said, with the folder's label."""
    with pytest.raises(StageError, match=r"\./x: not a model folder"):
        read_folder(tmp_path, "./x")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StageError, match=r"\./m: no tokenizer\.json"):
        load_tokenizer(folder, "./m")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(StageError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(folder)
    for name in ("sentence_bert_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    write(folder / "config.json", {"hidden_size": 384})
    with pytest.raises(StageError, match="does not state the maximum length of a text"):
        read_folder(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(StageError, match=r"modules\.json cannot be read"):
        read_folder(folder)


def test_tokens_are_counted_whole(minilm: Path, folder: Path) -> None:
    """The file says to cut at 128 tokens and to pad: counts know nothing of it."""
    counts = count_tokens(load_tokenizer(minilm), ["", "pump", "pump " * 1000])
    assert counts == [2, 3, 1002]
    write(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    assert load_tokenizer(folder).encode("PUMP").ids == load_tokenizer(minilm).encode("pump").ids
