"""Worker Jobs and the gateway of searchops: encoders, engines, holdout gate, retrieval, re-embedding."""
