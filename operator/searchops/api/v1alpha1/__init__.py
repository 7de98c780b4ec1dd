"""The kinds of searchops.dev/v1alpha1."""

from searchops.api.v1alpha1.embedding_model import EmbeddingModel
from searchops.api.v1alpha1.reindex_job import ReindexJob
from searchops.api.v1alpha1.search_tenant import SearchTenant

KINDS: tuple[type[SearchTenant] | type[EmbeddingModel] | type[ReindexJob], ...] = (
    SearchTenant,
    EmbeddingModel,
    ReindexJob,
)

__all__ = ["KINDS", "EmbeddingModel", "ReindexJob", "SearchTenant"]
