"""searchops: a Kubernetes operator for multi-tenant hybrid search. Kept free of client imports: workers import searchops.api through it."""

__version__ = "0.1.0"
