"""What the chart promises, read from its golden files (a test with a real helm keeps them true)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from searchops.api.v1alpha1 import KINDS
from searchops.api.v1alpha1.embedding_model import Margins
from searchops.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
Json = dict[str, Any]
CASES = ("default", "full")
every_case = pytest.mark.parametrize("case", CASES)


def documents(case: str, kind: str = "") -> list[Json]:
    text = (ROOT / f"tests/unit/charts/golden/{case}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document and kind in ("", document["kind"])]


def rules(case: str) -> list[Json]:
    return [
        rule for kind in ("ClusterRole", "Role") for document in documents(case, kind) for rule in document["rules"]
    ]


def pods(case: str) -> dict[str, Json]:
    """Every Pod's spec by what it is made from."""
    deployments = {item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in documents(case, "Deployment")}
    templates = {item["metadata"]["name"]: item["template"]["spec"] for item in documents(case, "PodTemplate")}
    return {**deployments, **templates}


def values() -> Json:
    loaded: Json = yaml.safe_load((ROOT / "charts/searchops/values.yaml").read_text(encoding="utf-8"))
    return loaded


@every_case
def test_no_right_is_a_wildcard_and_no_secret_is_listed_across_the_cluster(case: str) -> None:
    for rule in rules(case):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    (cluster,) = documents(case, "ClusterRole")
    verbs = {verb for rule in cluster["rules"] if "secrets" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "create", "patch", "delete"}


def test_the_rights_name_every_kind_and_nothing_writes_a_spec() -> None:
    (cluster,) = documents("default", "ClusterRole")
    ours = [rule for rule in cluster["rules"] if rule["apiGroups"] == ["searchops.dev"]]
    watched = next(rule for rule in ours if "watch" in rule["verbs"])
    assert set(watched["resources"]) == {kind.plural for kind in KINDS}
    assert all("update" not in rule["verbs"] for rule in ours)
    assert {resource for rule in ours for resource in rule["resources"] if resource.endswith("/status")} == {
        f"{kind.plural}/status" for kind in KINDS
    }


@every_case
def test_every_container_is_restricted(case: str) -> None:
    for name, pod in pods(case).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name


@every_case
def test_only_the_operator_holds_kubernetes_credentials(case: str) -> None:
    assert [name for name, pod in pods(case).items() if pod["automountServiceAccountToken"]] == ["searchops"]
    for account in documents(case, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_the_gateway_mounts_its_credentials_and_starts_without_them() -> None:
    pod = pods("full")["searchops-gateway"]
    (volume,) = (item for item in pod["volumes"] if "secret" in item)
    assert volume["secret"] == {
        "secretName": values()["gateway"]["credentialsSecret"],
        "optional": True,
        "defaultMode": 0o440,
        "items": [{"key": "credentials.json", "path": "credentials.json"}],
    }
    (container,) = pod["containers"]
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == volume["name"])
    (variable,) = (item for item in container["env"] if item["name"] == "SEARCHOPS_GATEWAY_CREDENTIALS")
    assert (mount["readOnly"], variable["value"]) == (True, f"{mount['mountPath']}/credentials.json")
    assert [name for name, pod in pods("full").items() if "searchops-credentials" in str(pod)] == ["searchops-gateway"]


def test_the_operators_settings_are_the_charts_environment() -> None:
    (settings,) = (item for item in documents("full", "ConfigMap") if item["metadata"]["name"].endswith("-settings"))
    names = {name.removeprefix("SEARCHOPS_").lower() for name in settings["data"]}
    by_downward_api = {"namespace", "identity"}
    assert names | by_downward_api == set(OperatorSettings.model_fields) - {"kubeconfig"}
    container = pods("full")["searchops"]["containers"][0]
    assert {item["name"] for item in container["env"] if "valueFrom" in item} == {
        f"SEARCHOPS_{name.upper()}" for name in by_downward_api
    }


@every_case
def test_the_environment_parses_as_settings(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = (item for item in documents(case, "ConfigMap") if item["metadata"]["name"].endswith("-settings"))
    for name, value in settings["data"].items():
        monkeypatch.setenv(name, value)
    parsed = OperatorSettings()
    assert parsed.catalogue_allowed("s3://catalogues/acme/a.jsonl", "acme")
    assert not parsed.catalogue_allowed("s3://catalogues/acme/a.jsonl", "other")
    if case == "full":
        assert parsed.source_prefixes == ("s3://models/", "s3://holdouts/")
        assert parsed.gateway_url == "http://searchops-gateway.searchops-system.svc"


def test_the_charts_defaults_are_the_operators_defaults() -> None:
    chart, defaults = (
        values()["settings"],
        {name: field.default for name, field in OperatorSettings.model_fields.items()},
    )
    same = {
        "fleet": "fleet",
        "allowFileUris": "allow_file_uris",
        "tokenLifetimeDays": "token_lifetime_days",
        "revocableTokens": "revocable_tokens",
        "cellAccessSeconds": "cell_access_seconds",
        "isolationCanaryMinutes": "isolation_canary_minutes",
        "bindingSettleSeconds": "binding_settle_seconds",
        "clockSkewSeconds": "clock_skew_seconds",
        "resyncMinutes": "resync_minutes",
        "cellSweepMinutes": "cell_sweep_minutes",
        "writesPerSecond": "writes_per_second",
        "maxReindexes": "max_reindexes",
        "maxPinnedTrials": "max_pinned_trials",
        "logFormat": "log_format",
        "logLevel": "log_level",
    }
    assert {name: chart[name] for name in same} == {name: defaults[field] for name, field in same.items()}
    assert chart["workers"] == {name: defaults[f"{name}_workers"] for name in ("tenant", "model", "reindex")}
    ports = values()["operator"]["ports"]
    assert ports == {"metrics": defaults["metrics_port"], "probes": defaults["probe_port"]}
    assert values()["admission"]["margins"] == Margins().to_wire()


@every_case
def test_probes_ports_and_selectors_fit_together(case: str) -> None:
    for deployment in documents(case, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} <= ports
    services = documents(case, "Service")
    budgets = documents(case, "PodDisruptionBudget")
    assert len(services) == len(budgets) == len(documents(case, "Deployment"))


@every_case
def test_worker_templates_are_usable(case: str) -> None:
    for template in documents(case, "PodTemplate"):
        kinds = template["metadata"]["labels"]["searchops.dev/worker-for"].split("_")
        assert set(kinds) <= {"build", "evaluate", "reindex", "backup", "prove"}
        assert [item["name"] for item in template["template"]["spec"]["containers"]] == ["worker"]
        assert template["template"]["spec"]["restartPolicy"] == "Never"


@every_case
def test_every_policy_denies_and_fails_closed(case: str) -> None:
    policies = {item["metadata"]["name"]: item["spec"] for item in documents(case, "ValidatingAdmissionPolicy")}
    bound = {
        item["spec"]["policyName"]: item["spec"]["validationActions"]
        for item in documents(case, "ValidatingAdmissionPolicyBinding")
    }
    assert bound == {key: ["Deny"] for key in policies}
    assert {policy["failurePolicy"] for policy in policies.values()} == {"Fail"}


def test_the_schema_of_the_values_knows_every_value() -> None:
    schema = json.loads((ROOT / "charts/searchops/values.schema.json").read_text(encoding="utf-8"))

    def check(part: Json, node: Any, path: str) -> None:
        for name, inner in node.items() if isinstance(node, dict) else ():
            known = part.get("properties", {}).get(name, part.get("additionalProperties"))
            if part.get("type") == "object" and "properties" not in part and not part.get("additionalProperties"):
                continue
            assert isinstance(known, dict), f"{path}.{name} is not in values.schema.json"
            check(known, inner, f"{path}.{name}")

    check(schema, values(), "")
