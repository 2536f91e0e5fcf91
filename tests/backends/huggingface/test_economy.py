"""Work that is spared changes no result."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def model(tiny_llama):
    """A tiny Llama whose four query heads share two pairs of keys and values."""
    from llmpipe.backends.huggingface.inference import load_model

    return load_model(tiny_llama, threads=1).model


@pytest.mark.parametrize("padded", [False, True])
def test_query_heads_of_a_group_share_the_cache(model, padded):
    """Token by token, with rows padded on the left, the logits are those of a plain pass."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from llmpipe.backends.huggingface.economy import grouped_attention

    torch.manual_seed(0)
    ids, mask = torch.randint(3, 1000, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, : 4 if padded else 0] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with torch.inference_mode(), grouped_attention():
        grouped = ALL_ATTENTION_FUNCTIONS["sdpa"]
        past = model(ids[:, :6], attention_mask=mask[:, :6], position_ids=positions[:, :6])
        found = []
        for at in range(6, 9):
            past = model(
                ids[:, at : at + 1],
                attention_mask=mask[:, : at + 1],
                position_ids=positions[:, at : at + 1],
                past_key_values=past.past_key_values,
            )
            found.append(past.logits[:, 0])
    assert grouped is not plain
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is plain
    with torch.inference_mode():
        expected = model(ids, attention_mask=mask, position_ids=positions).logits[:, 6:]
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=1e-4, atol=1e-5)


def test_keys_are_not_copied_for_each_query_head(model, monkeypatch):
    """What reaches torch has as many query heads as keys, and a group's heads for tokens."""
    import torch

    from llmpipe.backends.huggingface.economy import grouped_attention

    attend, shapes = torch.nn.functional.scaled_dot_product_attention, []

    def watched(query, key, value, **given):
        shapes.append((tuple(query.shape[:3]), tuple(key.shape[:3])))
        return attend(query, key, value, **given)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with torch.inference_mode(), grouped_attention():
        past = model(torch.tensor([[5, 6, 7]])).past_key_values
        assert {query for query, _ in shapes} == {(1, 4, 3)}  # several tokens: left as it is
        shapes.clear()
        model(torch.tensor([[8]]), past_key_values=past)
    assert set(shapes) == {((1, 2, 2), (1, 2, 4))}


def test_logits_at_chosen_positions(model):
    """They are those of the whole batch, in the order asked for; afterwards all are back."""
    import torch

    from llmpipe.backends.huggingface.economy import chosen_positions

    ids, chosen = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([1, 2, 5])
    with torch.inference_mode():
        with chosen_positions(model, chosen):
            some = model(ids).logits
        whole = model(ids).logits
    assert whole.shape[:2] == (2, 3)
    assert some.shape[:2] == (1, 3)
    torch.testing.assert_close(some[0], whole.flatten(0, 1)[chosen], rtol=1e-5, atol=1e-6)
