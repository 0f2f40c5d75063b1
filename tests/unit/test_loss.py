"""Loss per token against transformers' own loss and closed forms; the mask; sums over draws."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from tiny_models import make_tokens

from lmshape.models.extract import MASKED_SHARE, loss_by_draw, mask, masked_nll, next_token_nll, predictable


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    ids = torch.arange(8).reshape(2, 4)
    nll = next_token_nll(torch.full((2, 4, 50), 3.0), ids)
    assert nll.dtype == torch.float32
    assert torch.isnan(nll[:, 0]).all()
    torch.testing.assert_close(nll[:, 1:], torch.full((2, 3), log(50)))


def test_each_token_is_predicted_from_the_place_before_it() -> None:
    ids = torch.tensor([[3, 1, 4, 1]])
    logits = torch.zeros(1, 4, 6)
    logits[0, 0, 1] = logits[0, 1, 4] = logits[0, 2, 1] = 50.0
    assert next_token_nll(logits, ids)[0, 1:].max() < 1e-6


def test_float64_reference_with_logits_of_any_type() -> None:
    torch.manual_seed(0)
    ids = torch.randint(40, (3, 9))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-6)):
        logits = (torch.randn(3, 9, 40) * 30).to(dtype)
        scores = torch.log_softmax(logits.double(), dim=-1)
        expected = -scores[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0]
        found = next_token_nll(logits, ids)[:, 1:]
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-5)


def test_a_sequence_of_one_token_has_no_loss() -> None:
    assert torch.isnan(next_token_nll(torch.zeros(2, 1, 5), torch.zeros(2, 1, dtype=torch.int64))).all()


def test_masked_tokens_alone_have_a_loss() -> None:
    ids = torch.tensor([[2, 3, 4], [5, 0, 1]])
    masked = torch.tensor([[False, True, False], [False, False, False]])
    nll = masked_nll(torch.zeros(2, 3, 7), ids, masked)
    assert nll[0, 1].item() == pytest.approx(log(7))
    assert torch.isnan(nll[~masked]).all()
    assert torch.isnan(masked_nll(torch.zeros(2, 3, 7), ids, torch.zeros_like(masked))).all()


def test_mask_is_a_fixed_share_of_the_predictable_tokens() -> None:
    tokens = make_tokens([100] * 200, specials=True)
    chosen = mask(tokens, seed=3)
    assert not chosen[tokens.special].any()
    assert not chosen[tokens.position == 0].any()
    share, count = MASKED_SHARE, np.count_nonzero(predictable(tokens))
    assert abs(chosen.sum() / count - share) < 4 * np.sqrt(share * (1 - share) / count)  # 4 standard errors
    np.testing.assert_array_equal(chosen, mask(tokens, seed=3))
    assert (chosen != mask(tokens, seed=4)).any()


def test_sums_by_draw() -> None:
    tokens = make_tokens([3, 3, 2], draws=2)  # sequences 0 and 1 are draw 0, sequence 2 is draw 1
    nll = np.array([np.nan, 1, 2, np.nan, 3, 4, np.nan, 5], dtype=np.float32)
    first, second = loss_by_draw(tokens, nll, predicted=predictable(tokens))
    assert (first.draw, first.tokens, first.nats, first.bytes) == (0, 4, 10.0, 12.0)
    assert (second.draw, second.tokens, second.nats, second.bytes) == (1, 1, 5.0, 3.0)


def test_a_masked_share_stands_for_its_share_of_the_bytes() -> None:
    tokens = make_tokens([5, 5], draws=2)
    predicted = np.zeros(10, dtype=bool)
    predicted[2] = True
    nll = np.where(predicted, np.float32(2), np.float32(np.nan))
    first, second = loss_by_draw(tokens, nll, predicted=predicted)
    assert (first.tokens, first.nats, first.bytes) == (1, 2.0, 3.0)
    assert (second.tokens, second.nats, second.bytes) == (0, 0.0, 0.0)


def test_sums_keep_float64_precision() -> None:
    tokens = make_tokens([100_001], draws=1)
    nll = np.full(100_001, 0.1, dtype=np.float32)
    (total,) = loss_by_draw(tokens, nll, predicted=predictable(tokens))
    assert total.nats == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-12)
