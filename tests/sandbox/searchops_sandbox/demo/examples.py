"""The model files of `examples/`: one text per rung of the ladder, with the digests of what the fixtures make.

``python -m searchops_sandbox.demo.examples`` writes them, ``--check`` says whether they are current.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from searchops_sandbox.demo.buckets import EXAMPLES, MODELS, SHOP_HOLDOUT, Buckets

ABOUT = {
    "r1": "The first model: gated against the lexical legs that tenants serve meanwhile.",
    "r2": "The same model repackaged (weights rounded to FP16): the same vector space, so no re-embedding.",
    "r3": "A better model: another space, rolled out in waves with a ReindexJob for each tenant.",
    "r4": "A worse model: the gate refuses it, and nothing that shoppers see changes.",
}
TEMPLATE = """\
# {about}
apiVersion: searchops.dev/v1alpha1
kind: EmbeddingModel
metadata:
  name: shop-encoder
spec:
  source:
    uri: s3://models/shop-encoder/{name}
    digest: {digest}
  engine:
    backend: Auto                # a TensorRT plan where one can be built, ONNX Runtime until then
    precision: Auto
    maxBatch: 64
    buckets: [16, 32, 64, 128]
    worker: {{podTemplate: cpu}}
  serving: {{pool: default, canaryPool: canary}}
  gate:
    profile: plain
    holdouts:
      - name: core
        uri: s3://{holdout}
        digest: {holdout_digest}
    worker: {{podTemplate: cpu}}
  rollout:
    waves:
      - {{name: canary, selector: {{matchLabels: {{tier: canary}}}}, soak: 2s}}
      - {{name: half, percent: 50, soak: 2s}}
      - {{name: all, percent: 100}}
    rollbackWindow: 72h
"""


def rendered(digests: dict[str, str]) -> dict[Path, str]:
    """Every model file by path."""
    return {
        EXAMPLES / "models" / f"shop-encoder-{name}.yaml": TEMPLATE.format(
            about=ABOUT[name],
            name=name,
            digest=digests[name],
            holdout=SHOP_HOLDOUT,
            holdout_digest=digests["shop-core"],
        )
        for name in MODELS
    }


def main(arguments: list[str]) -> int:
    """Write, or check."""
    with tempfile.TemporaryDirectory(prefix="searchops-examples-") as folder:
        files = rendered(Buckets(Path(folder)).fill())
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            sys.stderr.write(f"{path.name} is stale; run python -m searchops_sandbox.demo.examples\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
