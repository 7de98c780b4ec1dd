"""Names are functions of their inputs: a retry makes no second one, and no tenant's name is another's."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchops.planning import names

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(one=st.tuples(LABEL, LABEL, LABEL), other=st.tuples(LABEL, LABEL, LABEL))
def test_aliases_are_different_for_different_tenants(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (names.alias_name(*one) == names.alias_name(*other)) is (one == other)
    assert len(names.alias_name(*one)) <= 200


CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NEAR = st.from_regex(r"[ab]([-a]{0,3}[ab])?", fullmatch=True)
"""Few letters, so that two triples often are the same text once dots and hyphens are not told apart."""
TRIPLE = st.tuples(NEAR, NEAR, NEAR)


@CALM
@given(
    tenants=st.lists(TRIPLE, min_size=2, max_size=12, unique=True), generations=st.sets(st.integers(0, 3), min_size=1)
)
def test_no_name_on_a_cell_is_two_tenants(tenants: list[tuple[str, str, str]], generations: set[int]) -> None:
    """Tenant `a` of namespace `b-c` and tenant `c-a` of `b`: every alias, side and collection is one tenant's."""
    taken: dict[str, tuple[str, str, str]] = {}
    for tenant in tenants:
        alias = names.alias_name(*tenant)
        own = {alias, *(names.side_alias(alias, number) for number in (0, 1))}
        own |= {names.collection_name(alias, number) for number in generations}
        for name in own:
            assert taken.setdefault(name, tenant) == tenant, f"{name} is two tenants'"
            assert name not in {names.tokens_collection(fleet) for fleet, _, _ in tenants}
        assert {names.alias_of(name) for name in own if "@g" in name} == {alias}


LONG = st.text(alphabet="ab-", min_size=60, max_size=120).map(lambda text: f"a{text}a")


@CALM
@given(shared=LONG, first=LONG, second=LONG, fleet=LABEL)
def test_two_that_share_all_that_is_kept_of_them_are_told_apart(
    shared: str, first: str, second: str, fleet: str
) -> None:
    """Longer than Kubernetes allows: the hash is of the whole, so that a common beginning is no collision."""
    one, other = (names.alias_name(fleet, shared, shared + end) for end in (first, second))
    assert max(len(one), len(other)) <= names.MAX_ALIAS
    assert (one == other) is (first == second)


def test_no_name_that_kubernetes_allows_is_ever_shortened() -> None:
    longest = "a" * 63
    assert names.alias_name(longest, longest, longest) == f"{longest}.{longest}.{longest}"
    assert len(names.collection_name(names.alias_name(longest, longest, longest), 999_999)) <= 255


@CALM
@given(
    tenants=st.lists(
        st.tuples(st.sampled_from(["a" * 39 + "-b", "a" * 40, "a" * 63, "a", "a-b"]), st.uuids().map(str)),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    attempts=st.sets(st.integers(1, 3), min_size=1),
)
def test_no_child_is_two_tenants_even_where_their_names_are_cut_alike(
    tenants: list[tuple[str, str]], attempts: set[int]
) -> None:
    jobs = [names.reindex_job_name(name, uid, "d-1", "s", attempt) for name, uid in tenants for attempt in attempts]
    workers = [names.job_name(kind, uid) for _, uid in tenants for kind in ("reindex", "backup")]
    if len({uid for _, uid in tenants}) == len(tenants):
        assert len(set(jobs)) == len(jobs)
        assert len(set(workers)) == len(workers)
    assert all(DNS_LABEL.fullmatch(name) and len(name) <= 63 for name in (*jobs, *workers))


def test_an_alias_past_its_bound_is_shortened_by_a_hash_of_all_of_it() -> None:
    long, longer = names.alias_name("f", "n" * 150, "a" * 150), names.alias_name("f", "n" * 150, "a" * 151)
    assert len(long) == len(longer) == 200
    assert long != longer


@given(alias=LABEL, generation=st.integers(0, 10_000))
def test_a_physical_name_tells_its_generation_and_is_nobodys_alias(alias: str, generation: int) -> None:
    name = names.collection_name(alias, generation)
    assert names.generation_of(alias, name) == generation
    assert names.generation_of(f"{alias}x", name) is None
    assert "@" in name
    assert names.side_alias(alias, generation) == f"{alias}@{'ab'[generation % 2]}"
    assert names.side_alias(alias, generation) != names.side_alias(alias, generation + 1)


def test_what_only_looks_like_a_generation_is_none() -> None:
    for name in ("x", "x@a", "x@g", "x@g01", "x@g1 ", "x@g-1", "y@g1", "x@g1@g2"):
        assert names.generation_of("x", name) is None


@given(tenant=LABEL, uid=st.uuids().map(str), attempt=st.integers(1, 9))
def test_a_reindex_jobs_name_is_a_short_label_of_its_own(tenant: str, uid: str, attempt: int) -> None:
    name = names.reindex_job_name(tenant, uid, "d-1", "s", attempt)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= 51
    assert name == names.reindex_job_name(tenant, uid, "d-1", "s", attempt)
    others = (
        (uid, "d-2", "s", attempt),
        (uid, "d-1", "t", attempt),
        (uid, "d-1", "s", attempt + 1),
        ("", "d-1", "s", 1),
    )
    assert name not in {names.reindex_job_name(tenant, *other) for other in others}


@given(
    parts=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4), min_size=1, max_size=4
    )
)
def test_hashed_parts_are_kept_apart(parts: list[str]) -> None:
    joined = "".join(parts)
    if len(parts) > 1:
        assert names.short_hash(*parts, length=16) != names.short_hash(joined, length=16)
    assert re.fullmatch(r"[0-9a-f]{16}", names.short_hash(*parts, length=16))


def test_revisions_and_their_parts_are_told_from_other_models() -> None:
    revision = names.revision_name("shop-encoder", 3, "sha256:4be1c7aa" + "0" * 56)
    assert revision == "shop-encoder-r3-4be1c7aa"
    assert names.model_parts(revision) == (f"{revision}-enc", f"{revision}-tok", revision)
    assert all(names.is_revision_of("shop-encoder", part) for part in names.model_parts(revision))
    assert not names.is_revision_of("shop", revision)
    assert not names.is_revision_of("encoder", revision)
    assert not names.is_revision_of("shop-encoder", "shop-encoder-r3-xyz")


def test_spaces_jobs_and_shared_names_follow_from_their_inputs() -> None:
    assert names.space_id("f", "FP16", 256, "m-r1-a") != names.space_id("f", "FP16", 256, "m-r2-a")
    assert len(names.space_id("f", "FP16", 256, "m-r1-a")) == 12
    assert names.job_name("build", "uid", "a", "b") != names.job_name("build", "uid", "ab")
    assert re.fullmatch(r"build-[0-9a-f]{16}", names.job_name("build", "uid", "a"))
    assert (names.state_map_name("m"), names.tokens_collection("prod")) == ("searchops-model-m", "prod@tokens")
