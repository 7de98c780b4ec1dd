"""The retrieval contract: profiles, the analyser's identity, vector names, and the binding of a collection.

A binding lives as one flat JSON value in the collection's metadata, so that one alias action or one metadata patch
moves encoder, vector, fusion and analyser together.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated

from pydantic import Field

from searchops.api.meta import ApiModel

ANALYSER_VERSION = "2"
"""Raised by every change of tokens: the lexical vectors' names carry it, so old and new never mix."""

PRODUCT_NAMESPACE = uuid.UUID("6f9c1e0a-6f3e-5d0e-9a55-2d3c5f1b7a10")
ID_KEY = "_id"
VERSION_KEY = "_version"
DELETED_KEY = "_deleted"
MISSED_KEY = "_missed"
"""Payload keys of ours. The last one names the previous side that has not got this version of the point."""

BINDING_KEY = "searchops.dev/binding"
PENDING_KEY = "searchops.dev/pending"
PREVIOUS_KEY = "searchops.dev/previous"
"""Flat metadata keys of a collection: what it is bound to, what is being filled, what a rollback would need."""

Weight = Annotated[float, Field(ge=0, le=100)]


class Weights(ApiModel):
    """Weights of the legs in reciprocal rank fusion; 0 switches a leg off.

    Attributes:
        lex: weight of the words' BM25.
        tri: weight of the character trigrams' BM25.
        dense: weight of the dense vector.
    """

    lex: Weight = 1.0
    tri: Weight = 1.0
    dense: Weight = 1.0


class Floors(ApiModel):
    """Smallest score a leg's hit must have; unset means no floor.

    Attributes:
        lex: smallest BM25 score of words.
        tri: smallest BM25 score of trigrams.
        dense: smallest cosine.
    """

    lex: Annotated[float, Field(ge=-1, le=1000)] | None = None
    tri: Annotated[float, Field(ge=-1, le=1000)] | None = None
    dense: Annotated[float, Field(ge=-1, le=1)] | None = None


class CodeRouting(ApiModel):
    """Whether a query that looks like a code goes to the lexical legs alone.

    Attributes:
        enabled: whether codes are recognised at all.
        min_length: shortest text that can be a code.
    """

    enabled: bool = True
    min_length: Annotated[int, Field(ge=1, le=64)] = 3


class RetrievalProfile(ApiModel):
    """Fusion, routing and floor settings, gated like a model: part of what a binding names.

    Attributes:
        name: name that a binding shows.
        rrf_k: constant k of reciprocal rank fusion.
        prefetch_limit: hits that each leg brings into the fusion.
        over_fetch: how many times the wanted hits are asked for, so that ties can be broken by id.
    """

    name: Annotated[str, Field(min_length=1, max_length=63)]
    rrf_k: Annotated[int, Field(ge=1, le=1000)] = 60
    weights: Weights = Field(default_factory=Weights)
    floors: Floors = Field(default_factory=Floors)
    prefetch_limit: Annotated[int, Field(ge=10, le=1000)] = 100
    over_fetch: Annotated[int, Field(ge=1, le=10)] = 3
    code_routing: CodeRouting = Field(default_factory=CodeRouting)


BUILTIN_PROFILES: dict[str, RetrievalProfile] = {
    "default": RetrievalProfile(
        name="default", weights=Weights(lex=1.5, tri=0.5, dense=1.0), floors=Floors(dense=0.25)
    ),
    "plain": RetrievalProfile(name="plain", rrf_k=10),
}


MEASURED_AVG_LEN_LEX = 22.0
MEASURED_AVG_LEN_TRI = 90.0
"""Lengths of a short product text (title, brand, attributes), measured on the fixtures' catalogue: 16 to 22 word tokens
in a shop of one language, 26 with three stems a word, and 82 to 96 trigrams. BM25 forgives four times as much."""


class AnalyserSettings(ApiModel):
    """Everything that tokens and their weights depend on; any change is another pair of lexical vectors.

    Attributes:
        avg_len_lex: average number of word tokens in a document; of products where it is not measured for the tenant.
        avg_len_tri: average number of trigrams in a document.
    """

    version: str = ANALYSER_VERSION
    languages: tuple[str, ...] = ("en",)
    lexicon_digest: str = ""
    avg_len_lex: float = MEASURED_AVG_LEN_LEX
    avg_len_tri: float = MEASURED_AVG_LEN_TRI

    @property
    def analyser_id(self) -> str:
        """Eight hex digits that stand for these settings in the names of vectors."""
        parts = (
            self.version,
            ",".join(self.languages),
            self.lexicon_digest,
            f"{self.avg_len_lex:.3f}",
            f"{self.avg_len_tri:.3f}",
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def lexical_vector(analyser_id: str) -> str:
    """Name of the BM25 vector."""
    return f"lex-{analyser_id}"


def trigram_vector(analyser_id: str) -> str:
    """Name of the character-trigram vector."""
    return f"tri-{analyser_id}"


def dense_vector(space: str) -> str:
    """Name of the dense vector of a space: a query encoded by another model asks for a vector that is not there."""
    return f"d-{space}"


def point_id(product_id: str, slice_key: str = "") -> str:
    """The point of a product: the same product always lands on the same point.

    Args:
        product_id: the merchant's own.
        slice_key: of the slice, where tenants share a collection: equal ids of two merchants are two points.
    """
    namespace = uuid.uuid5(PRODUCT_NAMESPACE, slice_key) if slice_key else PRODUCT_NAMESPACE
    return str(uuid.uuid5(namespace, product_id))


class FieldRoles(ApiModel):
    """Which payload fields play which role."""

    code: tuple[str, ...] = ()
    title: tuple[str, ...] = ("title",)
    body: tuple[str, ...] = ()
    filter: tuple[str, ...] = ()


class Binding(ApiModel):
    """What a collection is searched with. Without an encoder it is the lexical binding.

    Attributes:
        side: alias of the side that this binding's vectors stand on (``<alias>@a`` or ``<alias>@b``).
        since: RFC 3339 time at which this value was written.
    """

    model: str | None = None
    revision: str | None = None
    encoder: str | None = None
    vector: str | None = None
    dimension: int | None = None
    manifest_digest: str | None = None
    analyser: AnalyserSettings = Field(default_factory=AnalyserSettings)
    profile: RetrievalProfile
    document: str = "{title}"
    fields: FieldRoles = Field(default_factory=FieldRoles)
    side: str | None = None
    since: str = ""

    @property
    def analyser_id(self) -> str:
        """Eight hex digits in the names of the lexical vectors."""
        return self.analyser.analyser_id

    @property
    def lexical_only(self) -> bool:
        """Whether no dense leg is bound."""
        return self.encoder is None

    def to_metadata(self) -> str:
        """The one flat value of the metadata key, canonical so that equal bindings are equal strings."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @classmethod
    def from_metadata(cls, text: str) -> Binding:
        """The binding that `to_metadata` wrote.

        Raises:
            pydantic.ValidationError: where the value is not a binding.
        """
        return cls.model_validate_json(text)


def missed_mark(previous: Binding) -> str:
    """What `MISSED_KEY` holds for a previous side; a later side under the same name is another one."""
    text = f"{previous.side or ''}/{previous.revision or 'lexical'}/{previous.since}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
