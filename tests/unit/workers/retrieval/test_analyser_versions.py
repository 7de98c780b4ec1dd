"""Tokens of each analyser version, recorded when it was the newest: vectors that were made with one are asked by it."""

from __future__ import annotations

import pytest

from searchops.api.retrieval import ANALYSER_VERSION, BUILTIN_PROFILES, AnalyserSettings, Binding, CodeRouting
from searchops_workers.gateway.bindings import parse_bindings
from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.analyser import VERSIONS, AnalyserVersionUnknown, analyser_of
from searchops_workers.retrieval.query import build_request, needs_dense
from searchops_workers.retrieval.sparse import LexicalEncoder

LANGUAGES = ("en", "de", "fi")
GOLDEN: dict[str, dict[str, tuple[str, ...]]] = {
    "1": {
        "AEH-000": ("ah-000", "ah000", "ah", "000"),
        "Oel 500": ("ol", "500"),
        "wp 2706": ("wp", "2706"),
        "WP-2706": ("wp-2706", "wp2706", "wp", "2706"),
        "tuer 2000": ("tur", "2000"),
        "TUER200 blau": ("tur200", "blau"),
    },
    "2": {
        "AEH-000": ("aeh-000", "aeh000", "aeh", "000"),
        "Oel 500": ("oel", "500"),
        "wp 2706": ("wp", "wp2706", "2706"),
        "WP-2706": ("wp-2706", "wp2706", "wp", "2706"),
        "tuer 2000": ("tuer", "2000"),
        "TUER200 blau": ("tuer200", "blau"),
    },
}
"""Of documents; queries differ where `ASKED` says so."""
ASKED: dict[str, dict[str, tuple[str, ...]]] = {
    "1": {"Oel 500": ("ol", "500"), "tuer 2000": ("tur", "2000")},
    "2": {"Oel 500": ("ol", "olla", "oel", "500"), "tuer 2000": ("tur", "tuer", "2000")},
}


def settings_of(version: str) -> AnalyserSettings:
    return AnalyserSettings(version=version, languages=LANGUAGES)


@pytest.mark.parametrize("version", VERSIONS)
def test_tokens_of_a_version_stay_what_they_were(version: str) -> None:
    analyser = analyser_of(settings_of(version))
    for text, wanted in GOLDEN[version].items():
        assert tuple(token.text for token in analyser.analyse(text)) == wanted, text
    for text, wanted in {**GOLDEN[version], **ASKED[version]}.items():
        assert tuple(token.text for token in analyser.analyse(text, query=True)) == wanted, text


def test_every_version_is_recorded_and_the_newest_is_what_new_tenants_get() -> None:
    assert tuple(GOLDEN) == tuple(ASKED) == VERSIONS
    assert AnalyserSettings().version == ANALYSER_VERSION == VERSIONS[-1]
    assert len({settings_of(version).analyser_id for version in VERSIONS}) == len(VERSIONS)


def test_vectors_of_two_versions_differ_where_their_tokens_do() -> None:
    one, two = (LexicalEncoder(settings_of(version)).document("AEH-000") for version in VERSIONS)
    assert one != two


def bound(version: str) -> Binding:
    return Binding(
        model="shop", revision="r", encoder="r", vector="d-1", dimension=2, analyser=settings_of(version),
        profile=BUILTIN_PROFILES["default"].model_copy(update={"code_routing": CodeRouting(min_length=5)}),
    )  # fmt: skip


@pytest.mark.parametrize(("version", "dense"), [("1", True), ("2", False)])
def test_a_code_typed_apart_goes_by_the_codes_alone_only_where_the_index_joins_it(version: str, dense: bool) -> None:
    assert needs_dense("wp 2706", bound(version)) is dense
    legs = build_request("wp 2706", bound(version), dense=[1.0, 0.0]).legs
    assert ("dense" in [leg.name for leg in legs]) is dense


def test_a_version_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(AnalyserVersionUnknown, match="analyser version '3' is not known here, wanted one of 1, 2"):
        analyser_of(settings_of("3"))


def test_the_gateway_answers_503_for_a_binding_of_such_a_version() -> None:
    with pytest.raises(Problem, match="analyser version '3'") as caught:
        parse_bindings({"searchops.dev/binding": bound("3").to_metadata()})
    assert (caught.value.status, caught.value.code) == (503, "binding-unreadable")
    known = {"searchops.dev/binding": bound("1").to_metadata(), "searchops.dev/pending": bound("3").to_metadata()}
    assert parse_bindings(known).pending is not None, "searches do not need the side that is being filled"
