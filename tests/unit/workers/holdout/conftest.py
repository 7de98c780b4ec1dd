"""A holdout of 330 families that the tests of the gate share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.workers.holdout.gate_samples import make_world

if TYPE_CHECKING:
    from unit.workers.holdout.gate_samples import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "core")
