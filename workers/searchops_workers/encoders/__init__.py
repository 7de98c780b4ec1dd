"""Text to vector: tokenise, pool, normalise; one interface over Triton, ONNX Runtime and sentence-transformers."""
