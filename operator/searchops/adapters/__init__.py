"""The only users of client libraries: Qdrant, Triton, Kubernetes, artifact stores; they translate errors."""
