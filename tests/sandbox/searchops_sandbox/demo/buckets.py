"""What the examples' ``s3://`` URIs stand for in the sandbox: folders of one machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from searchops_sandbox.fixtures.ladder import write_ladder
from searchops_sandbox.fixtures.output import COMMITTED, HOLDOUT
from searchops_workers.digests import directory_digest

REPOSITORY = Path(__file__).resolve().parents[4]
EXAMPLES = REPOSITORY / "examples"
CATALOGUES = COMMITTED / "catalogue"
SHOP_HOLDOUT = f"shop/{HOLDOUT}"
MODELS = ("r1", "r2", "r3", "r4")


@dataclass(frozen=True, slots=True)
class Buckets:
    """Folders that stand for buckets: ``s3://models/x`` is ``<root>/models/x``."""

    root: Path

    def fill(self, models: tuple[str, ...] = MODELS) -> dict[str, str]:
        """Write the ladder's checkpoints and the holdout; returns the digest of each by name."""
        digests = write_ladder(self.root / "models" / "shop-encoder", models)
        shutil.copytree(COMMITTED, self.root / "shop", dirs_exist_ok=True)
        return {**digests, "shop-core": directory_digest(self.root / SHOP_HOLDOUT)}

    def localise(self, text: str) -> str:
        """A manifest with its bucket URIs turned into files of this machine."""
        return text.replace("s3://", f"file://{self.root}/")
