"""Python models that run inside Triton; each file is copied as it is and imports nothing of ours."""
