"""Products to documents: the template, the payload, the point's id, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from searchops.api.retrieval import Binding, FieldRoles, RetrievalProfile, point_id
from searchops_workers.retrieval.documents import ProductError, document_of, lexical_text, product_of, render

BINDING = Binding(
    profile=RetrievalProfile(name="plain"),
    document="{title}. {brand}. {attributes}",
    fields=FieldRoles(code=("sku",)),
)


def test_missing_fields_leave_no_trace_in_the_text() -> None:
    assert render("{title}. {brand}. {attributes}", {"title": "Hex nut"}) == "Hex nut."
    assert (
        render("{title}. {brand}. {attributes}", {"title": "Hex nut", "attributes": {"thread": "M12"}})
        == "Hex nut. M12"
    )


def test_lists_objects_and_numbers_are_rendered_as_words() -> None:
    product = {"attributes": {"sizes": ["S", "M"], "weight": 2.0, "new": True, "none": None}}
    assert render("{attributes}", product) == "S, M, 2"
    assert render("{attributes.weight}", product) == "2"


def test_codes_are_indexed_though_the_template_leaves_them_out() -> None:
    assert "HN-1234" in lexical_text(BINDING, {"title": "Hex nut", "sku": "HN-1234"})


def test_the_same_product_is_always_the_same_point() -> None:
    one = document_of(BINDING, product_of({"id": 7, "title": "Hex nut"}), version=3)
    assert one.id == point_id("7")
    assert one.payload["_id"] == "7"
    assert one.payload["_version"] == 3
    assert set(one.lexical) == {f"lex-{BINDING.analyser_id}", f"tri-{BINDING.analyser_id}"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (["x"], "list"),
        ({}, "id is None"),
        ({"id": True}, "id is True"),
        ({"id": "  "}, "id is"),
        ({"id": "x" * 257}, "257"),
        ({"id": "1", "_version": 3}, "_version"),
    ],
)
def test_a_product_that_cannot_be_stored_is_refused_by_name(raw: Any, said: str) -> None:
    with pytest.raises(ProductError, match=said):
        product_of(raw)
