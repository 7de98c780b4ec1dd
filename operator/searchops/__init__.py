"""searchops: an operator for multi-tenant hybrid search; free of client imports, since workers import its API."""

__version__ = "0.1.0"
