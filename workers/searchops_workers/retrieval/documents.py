"""Products to what is stored: the text that is embedded, the lexical text, the point's id and payload."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops.api.retrieval import (
    DELETED_KEY,
    ID_KEY,
    MISSED_KEY,
    VERSION_KEY,
    lexical_vector,
    point_id,
    trigram_vector,
)
from searchops.api.shared import TENANT_KEY
from searchops_workers.retrieval.sparse import LexicalEncoder, SparseVector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.retrieval import Binding

PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_.]*)\}")
EMPTY_PART = re.compile(r"(?:\s*[.;,|·-]\s*)+(?=[.;,|·-])|^\s*[.;,|·-]+\s*")
MAX_DOCUMENT = 8_192
RESERVED = (ID_KEY, VERSION_KEY, DELETED_KEY, MISSED_KEY, TENANT_KEY)
"""Payload keys of ours: no product may have one, no search filters by one or shows one."""


class ProductError(ValueError):
    """A product that cannot be stored: what was seen, what is wanted."""


@dataclass(frozen=True, slots=True)
class Document:
    """One product as the worker writes it, without its dense vector."""

    id: str
    product_id: str
    payload: Mapping[str, Any]
    text: str
    lexical: Mapping[str, SparseVector]


def product_of(raw: Any) -> dict[str, Any]:
    """A product as merchants send it, checked.

    Raises:
        ProductError: it is no object, has no id, or uses a reserved key.
    """
    if not isinstance(raw, dict):
        raise ProductError(f"a product is {type(raw).__name__}; wanted a JSON object with an id")
    identifier = raw.get("id")
    if not isinstance(identifier, str | int) or isinstance(identifier, bool) or not str(identifier).strip():
        raise ProductError(f"id is {identifier!r}; wanted a text or a number that is not empty")
    if len(str(identifier)) > 256:
        raise ProductError(f"id has {len(str(identifier))} characters; wanted at most 256")
    reserved = [key for key in raw if key in RESERVED]
    if reserved:
        raise ProductError(f"key {reserved[0]!r} is reserved; rename it")
    return {**raw, "id": str(identifier)}


def render(template: str, product: Mapping[str, Any]) -> str:
    """The text that is embedded: the template with the product's fields; what is missing leaves no trace."""

    def value(found: re.Match[str]) -> str:
        return flatten(_lookup(product, found.group(1)))

    parts = [PLACEHOLDER.sub(value, part).strip() for part in re.split(r"(?<=[.;|])\s+", template)]
    kept = [part for part in parts if part.strip(" .;,|·-")]
    return " ".join(kept)[:MAX_DOCUMENT]


def _lookup(product: Mapping[str, Any], path: str) -> Any:
    current: Any = product
    for step in path.split("."):
        current = current.get(step) if isinstance(current, dict) else None
    return current


def flatten(value: Any) -> str:
    """Any JSON value as words: lists joined, objects by their values."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, dict):
        return ", ".join(filter(None, (flatten(item) for item in value.values())))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (flatten(item) for item in value)))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def lexical_text(binding: Binding, product: Mapping[str, Any]) -> str:
    """What the lexical legs index: the document and the codes, which a template may leave out."""
    text = render(binding.document, product)
    codes = [flatten(_lookup(product, name)) for name in binding.fields.code]
    extra = [code for code in codes if code and code not in text]
    return " ".join((text, *extra))


def document_of(binding: Binding, product: Mapping[str, Any], *, version: int | None = None) -> Document:
    """A product under a binding: id, payload, text and both lexical vectors."""
    lexical = LexicalEncoder(binding.analyser)
    lex, tri = lexical.document(lexical_text(binding, product))
    payload = {**product, ID_KEY: product["id"]}
    if version is not None:
        payload[VERSION_KEY] = version
    a8 = binding.analyser_id
    vectors = {name: vector for name, vector in ((lexical_vector(a8), lex), (trigram_vector(a8), tri)) if vector}
    return Document(point_id(product["id"]), product["id"], payload, render(binding.document, product), vectors)
