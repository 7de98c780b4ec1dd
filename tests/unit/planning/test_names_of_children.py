"""Names are functions of their inputs: a retry makes no second one, and no tenant's name is another's."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from searchops.planning import names

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(one=st.tuples(LABEL, LABEL, LABEL), other=st.tuples(LABEL, LABEL, LABEL))
def test_aliases_are_different_for_different_tenants(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (names.alias_name(*one) == names.alias_name(*other)) is (one == other)
    assert len(names.alias_name(*one)) <= 200


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
