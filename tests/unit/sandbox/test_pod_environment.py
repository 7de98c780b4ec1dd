"""The environment of a container, resolved as the kubelet does."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops_sandbox.pod_environment import ConfigError, SourceRef, command_line, expand, resolve, sources

Json = dict[str, Any]
SECRET = SourceRef("Secret", "keys")
SETTINGS = SourceRef("ConfigMap", "settings")
OBJECTS: dict[SourceRef, Json | None] = {
    SECRET: {"data": {"token": base64.b64encode(b"s3cret").decode()}},
    SETTINGS: {"data": {"MODE": "fast", "LEVEL": "2"}},
}
POD: Json = {
    "metadata": {
        "name": "pod-0",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"searchops.dev/kind": "reindex"},
        "annotations": {"batch.kubernetes.io/job-completion-index": "3"},
    },
    "spec": {"nodeName": "sandbox", "containers": []},
}


def container(*env: Json, **fields: Any) -> Json:
    return {"name": "worker", "command": ["run"], "env": list(env), **fields}


def from_field(path: str) -> Json:
    return {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def from_key(kind: str, name: str, key: str, **fields: Any) -> Json:
    return {"name": "KEYED", "valueFrom": {kind: {"name": name, "key": key, **fields}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "pod-0"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.annotations['batch.kubernetes.io/job-completion-index']", "3"),
        ("metadata.labels['searchops.dev/kind']", "reindex"),
        ("metadata.labels['absent']", ""),
        ("spec.nodeName", "sandbox"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.0.0.1"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert resolve(POD, container(from_field(path)), {}, {})["FIELD"] == value


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"does not serve fieldPath 'status\.phase'"):
        resolve(POD, container(from_field("status.phase")), {}, {})


def test_keys_of_secrets_are_decoded_and_those_of_config_maps_taken_as_they_are() -> None:
    secret = {**from_key("secretKeyRef", "keys", "token"), "name": "TOKEN"}
    setting = {**from_key("configMapKeyRef", "settings", "MODE"), "name": "MODE"}
    assert resolve(POD, container(secret, setting), OBJECTS, {}) == {"TOKEN": "s3cret", "MODE": "fast"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (from_key("secretKeyRef", "absent", "token"), "Secret 'absent' not found"),
        (from_key("configMapKeyRef", "absent", "token"), "ConfigMap 'absent' not found"),
        (from_key("secretKeyRef", "keys", "absent"), "couldn't find key 'absent' in Secret 'keys'"),
        (
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            "does not serve resourceField",
        ),
    ],
)
def test_what_is_missing_is_named(reference: Json, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(POD, container(reference), OBJECTS, {})


def test_optional_references_leave_the_variable_out() -> None:
    absent = [from_key("secretKeyRef", name, "nothing", optional=True) for name in ("absent", "keys")]
    whole = [{"secretRef": {"name": "absent", "optional": True}}]
    assert resolve(POD, container(*absent, envFrom=whole), OBJECTS, {"PATH": "/bin"}) == {"PATH": "/bin"}


def test_later_declarations_win_over_whole_objects_and_those_over_the_image() -> None:
    whole = [{"configMapRef": {"name": "settings"}}, {"configMapRef": {"name": "settings"}, "prefix": "P_"}]
    spec = container({"name": "MODE", "value": "slow"}, envFrom=whole)
    found = resolve(POD, spec, OBJECTS, {"LEVEL": "1", "HOME": "/here"})
    assert found == {"LEVEL": "2", "P_LEVEL": "2", "P_MODE": "fast", "MODE": "slow", "HOME": "/here"}


def test_a_missing_whole_object_is_named() -> None:
    with pytest.raises(ConfigError, match="ConfigMap 'gone' not found"):
        resolve(POD, container(envFrom=[{"configMapRef": {"name": "gone"}}]), OBJECTS, {})


def test_variables_see_only_those_declared_before_and_not_the_image() -> None:
    spec = container(
        {"name": "EARLY", "value": "$(LATE) $(HOME)"},
        {"name": "LATE", "value": "late"},
        {"name": "BOTH", "value": "$(LATE)-$(LATE)"},
    )
    found = resolve(POD, spec, {}, {"HOME": "/here"})
    assert (found["EARLY"], found["BOTH"]) == ("$(LATE) $(HOME)", "late-late")


def test_sources_are_listed_once_each() -> None:
    spec = container(
        from_key("secretKeyRef", "keys", "a"),
        from_key("secretKeyRef", "keys", "b"),
        from_key("configMapKeyRef", "settings", "c"),
        envFrom=[{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "settings"}}],
    )
    assert sources(spec) == [SourceRef("Secret", "all"), SETTINGS, SECRET]
    assert SECRET.plural == "secrets"


def test_command_and_arguments_are_expanded() -> None:
    spec = container(command=["run", "--pod=$(POD)"], args=["$$(POD)", "$(UNKNOWN)"])
    assert command_line(spec, {"POD": "p"}) == ["run", "--pod=p", "$(POD)", "$(UNKNOWN)"]


def test_a_container_without_a_command_has_nothing_to_run() -> None:
    with pytest.raises(ConfigError, match="no image to take one from"):
        command_line({"name": "worker"}, {})


@given(st.text(alphabet=st.characters(exclude_characters="$")), st.text())
def test_text_without_a_dollar_stays_and_values_are_not_expanded_again(text: str, value: str) -> None:
    assert expand(text, {"A": value}) == text
    assert expand("$(A)", {"A": value}) == value


@given(st.text())
def test_doubled_dollars_protect_any_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "filled"}) == text
