"""The label of a namespace follows its tenants: set with the first protected one, removed after the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from searchops.controllers.namespace_protection import NamespaceProtection
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Transient
from unit.controllers.fakes_faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeLabels:
    """Namespaces of an API server; `meanwhile` happens while a label is on its way off."""

    def __init__(self, faults: Faults | None = None, **labels: str) -> None:
        self.values = dict(labels)
        self.writes: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._faults = faults or Faults()

    async def labelled(self) -> dict[str, str]:
        return self._faults.through("list", lambda: dict(self.values))

    async def protect(self, namespace: str) -> None:
        def act() -> None:
            self.writes.append(f"protect {namespace}")
            self.values.setdefault(namespace, "tenants")

        self._faults.through("protect", act)

    async def release(self, namespace: str) -> None:
        def act() -> None:
            self.writes.append(f"release {namespace}")
            if self.values.get(namespace) == "tenants":
                del self.values[namespace]
            self.meanwhile()

        self._faults.through("release", act)


def cache_of(**protected: bool) -> ObjectCache[Any]:
    cache: ObjectCache[Any] = ObjectCache("searchtenants", lambda raw: raw)
    for number, (name, wanted) in enumerate(protected.items()):
        put(cache, name, wanted, number)
    return cache


def put(cache: ObjectCache[Any], name: str, wanted: bool, version: int = 100) -> None:
    namespace, tenant = name.split("_")
    metadata = {"namespace": namespace, "name": tenant, "uid": name, "resourceVersion": str(version + 1)}
    cache.apply("MODIFIED", {"metadata": metadata, "spec": {"deletionProtection": wanted}})


async def test_it_is_set_with_the_first_protected_tenant_and_removed_after_the_last() -> None:
    cache, labels = cache_of(shop_a=True, shop_b=False), FakeLabels()
    protection = NamespaceProtection(labels, cache)
    for _ in range(2):
        await protection.look("shop")
    assert labels.values == {"shop": "tenants"}
    put(cache, "shop_b", True)
    put(cache, "shop_a", False)
    await protection.look("shop")
    assert labels.writes == ["protect shop"]
    put(cache, "shop_b", False, 200)
    for _ in range(2):
        await protection.look("shop")
    assert (labels.values, labels.writes) == ({}, ["protect shop", "release shop"])


async def test_a_tenant_that_is_gone_protects_nothing_any_more() -> None:
    cache, labels = cache_of(shop_a=True), FakeLabels()
    protection = NamespaceProtection(labels, cache)
    await protection.look("shop")
    cached = cache.list()[0]
    cache.apply("DELETED", dict(cached.raw))
    await protection.look("shop")
    assert labels.values == {}


async def test_one_that_is_protected_while_the_label_goes_off_gets_it_back() -> None:
    cache, labels = cache_of(shop_a=False), FakeLabels(shop="tenants")
    protection = NamespaceProtection(labels, cache)
    labels.meanwhile = lambda: put(cache, "shop_a", True)
    await protection.run_once()
    assert labels.values == {"shop": "tenants"}


async def test_the_sweep_mends_what_happened_while_nobody_looked_and_leaves_a_persons_label() -> None:
    cache = cache_of(shop_a=True, mall_b=False)
    labels = FakeLabels(mall="tenants", closed="tenants", kept="by kaisa")
    protection = NamespaceProtection(labels, cache)
    await protection.run_once()
    assert labels.values == {"shop": "tenants", "kept": "by kaisa"}
    writes = list(labels.writes)
    await protection.run_once()
    assert labels.writes == writes
    del labels.values["shop"]  # by hand
    await protection.run_once()
    assert labels.values == {"shop": "tenants", "kept": "by kaisa"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_any_call_that_fails_is_made_up_for(at: int, when: Any) -> None:
    labels = FakeLabels(Faults(at, when), mall="tenants")
    protection = NamespaceProtection(labels, cache_of(shop_a=True, mall_b=False))
    for _ in range(2):
        await protection.run_once()
    assert labels.values == {"shop": "tenants"}


async def test_a_failed_write_is_told_to_the_pass_which_tries_again() -> None:
    labels = FakeLabels(Faults(0, "before"))
    protection = NamespaceProtection(labels, cache_of(shop_a=True))
    with pytest.raises(Transient):
        await protection.look("shop")
    await protection.look("shop")
    assert labels.values == {"shop": "tenants"}
