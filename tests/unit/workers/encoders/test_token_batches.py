from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops_workers.encoders.settings import EncoderSettings
from searchops_workers.encoders.tokenise import batch_tokens, bucket_for, plan_batches

BUCKETS = (4, 8, 16)


@given(st.lists(st.integers(min_value=1, max_value=16), max_size=60), st.integers(min_value=1, max_value=9))
def test_every_text_is_encoded_once_in_its_narrowest_bucket(lengths: list[int], max_batch: int) -> None:
    plan = plan_batches(lengths, BUCKETS, max_batch)
    assert sorted(row for rows, _ in plan for row in rows) == list(range(len(lengths)))
    for rows, width in plan:
        assert 1 <= len(rows) <= max_batch
        assert {bucket_for(lengths[row], BUCKETS) for row in rows} == {width}


@given(st.lists(st.lists(st.integers(min_value=1, max_value=99), min_size=1, max_size=16), max_size=30))
def test_padding_hides_nothing_and_adds_nothing(ids: list[list[int]]) -> None:
    settings = EncoderSettings(dimension=3, max_tokens=16, buckets=BUCKETS, max_batch=5, pad_token_id=100)
    seen = {}
    for batch in batch_tokens(ids, settings):
        assert (batch.input_ids[batch.attention_mask == 0] == 100).all()
        for position, row in enumerate(batch.rows):
            seen[row] = batch.input_ids[position][batch.attention_mask[position] == 1].tolist()
    assert [seen[row] for row in range(len(ids))] == ids


def test_a_text_that_fits_no_bucket_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"17 tokens fits none of the buckets \(4, 8, 16\)"):
        bucket_for(17, BUCKETS)
