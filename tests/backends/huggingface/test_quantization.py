"""A record of how a base was rounded may be written by hand: it is taken, or what is wrong named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.huggingface.quantization import loading_arguments
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder of a model that is not rounded itself."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        ("bfloat16", "torch.bfloat16"),
        ("torch.bfloat16", "torch.bfloat16"),
        (None, "torch.float32"),
    ],
)
def test_a_number_format_as_people_write_it(base: Path, written: str | None, dtype: str) -> None:
    """With PyTorch's name before it, or null, for which transformers takes float32."""
    record = {"load_in_4bit": True, "bnb_4bit_compute_dtype": written}
    arguments = loading_arguments(record, base)
    assert str(arguments["dtype"]) == dtype
    assert str(arguments["quantization_config"].bnb_4bit_compute_dtype) == dtype


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"bnb_4bit_compute_dtype": "bf"}, "'bf' is not a number format"),
        ({"bnb_4bit_compute_dtype": "load"}, "'load' is not a number format"),
        ({"bnb_4bit_quant_type": "nf5"}, "'nf5' is neither fp4 nor nf4"),
        ({"bnb_4bit_quant_type": ["nf4"]}, "is neither fp4 nor nf4"),
        ({"bnb_4bit_quant_storage": "uint7"}, "bnb_4bit_quant_storage"),
        ({"load_in_8bit": True}, "both True"),
        ({"load_in_4bit": "yes"}, "must be a boolean"),
    ],
)
def test_what_is_wrong_is_named(base: Path, record: dict[str, Any], said: str) -> None:
    """And where it stands, instead of a traceback."""
    with pytest.raises(StageError) as caught:
        loading_arguments({"load_in_4bit": True, **record}, base)
    assert said in caught.value.message
    assert "quantization_config.json" in (caught.value.hint or "")
