"""The charts by a real helm: linted, as golden files say, refused with bad values, accepted by a real API server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops_sandbox.control_plane import ControlPlane

    Helm = Callable[..., str]

pytestmark = pytest.mark.integration
on_the_session_loop = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/unit/charts/golden"
UPDATE = "SEARCHOPS_UPDATE_GOLDEN"
CASES = ("default", "full")
REQUIRED = ("--set", "settings.artifacts=s3://a/b")
Json = dict[str, Any]


def render(helm: Helm, *arguments: str) -> str:
    return helm("template", "searchops", "charts/searchops", "--namespace", "searchops-system", *arguments)


def render_case(helm: Helm, case: str) -> str:
    return render(helm, "--values", f"charts/searchops/ci/{case}-values.yaml")


@pytest.mark.parametrize("case", CASES)
def test_the_chart_passes_the_linter(helm: Helm, case: str) -> None:
    said = helm("lint", "--strict", "charts/searchops", "--values", f"charts/searchops/ci/{case}-values.yaml")
    assert "0 chart(s) failed" in said


def test_the_definitions_chart_passes_the_linter_and_says_what_crds_says(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", "charts/searchops-crds")
    rendered = list(yaml.safe_load_all(helm("template", "crds", "charts/searchops-crds")))
    for document in rendered:
        assert document["metadata"].pop("annotations")["helm.sh/resource-policy"] == "keep"
    committed = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").glob("*.yaml")]
    assert sorted(rendered, key=str) == sorted(committed, key=str)


@pytest.mark.parametrize("case", CASES)
def test_the_rendered_chart_is_the_golden_file(helm: Helm, case: str) -> None:
    path = GOLDEN / f"{case}.yaml"
    rendered = render_case(helm, case)
    if os.environ.get(UPDATE):
        path.write_text(rendered, encoding="utf-8")
    assert rendered == path.read_text(encoding="utf-8"), f"if the change is meant, run this test once with {UPDATE}=1"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("settings.artifacts=", "at '/settings/artifacts'"),
        ("settings.artifacts=https://a/b", "at '/settings/artifacts'"),
        ("settings.fleet=Prod.eu", "at '/settings/fleet'"),
        ("settings.cataloguePrefixes={s3://a}", "at '/settings/cataloguePrefixes/0'"),
        ("settings.colour=blue", "additional properties 'colour' not allowed"),
        ("colour=blue", "additional properties 'colour' not allowed"),
        ("operator.replicas=0", "at '/operator/replicas'"),
        ("image.operator.digest=latest", "at '/image/operator/digest'"),
        ("workers.cpu.for=build-evaluate", "at '/workers/cpu/for'"),
        ("workers.Big_One.enabled=true", "invalid propertyName 'Big_One'"),
        ("admission.margins.modelLoss=1.5", "at '/admission/margins/modelLoss'"),
        ("admission.cellWriters={a'b}", "at '/admission/cellWriters/0'"),
        ("gateway.service.type=ExternalName", "at '/gateway/service/type'"),
        ("gateway.credentialsSecret=Not_A_Name", "at '/gateway/credentialsSecret'"),
    ],
)
def test_bad_values_are_refused_and_named(helm: Helm, setting: str, says: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, *REQUIRED, "--set", setting)
    assert says in refused.value.stderr


def test_what_is_switched_off_is_not_there(helm: Helm) -> None:
    switched_off = [
        "admission.enabled=false",
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "workers.cpu.enabled=false",
    ]
    rendered = render(helm, *REQUIRED, *(part for one in switched_off for part in ("--set", one)))
    kinds = {document["kind"] for document in yaml.safe_load_all(rendered) if document}
    assert kinds == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    }


@pytest.mark.parametrize(
    ("values", "says", "silent"),
    [
        ([], "no gateway is named", "admission is off"),
        (["admission.enabled=false"], "admission is off", "file:// URIs"),
        (["settings.allowFileUris=true", "gateway.enabled=true"], "file:// URIs are allowed", "no gateway is named"),
    ],
)
@on_the_session_loop
async def test_the_notes_warn_of_what_is_open(
    helm: Helm, definitions: ControlPlane, values: list[str], says: str, silent: str
) -> None:
    arguments = [part for one in values for part in ("--set", one)]
    where = ("--dry-run=server", "--kubeconfig", str(definitions.kubeconfig), "--namespace", "searchops-system")
    shown = helm("install", "searchops", "charts/searchops", *where, *REQUIRED, *arguments)
    notes = shown.split("NOTES:")[1]
    assert says in notes
    assert silent not in notes


@pytest.mark.parametrize("case", CASES)
@on_the_session_loop
async def test_the_api_server_accepts_everything(helm: Helm, definitions: ControlPlane, case: str) -> None:
    rendered = render_case(helm, case)
    said = await definitions.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered)
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    assert said.count("(server dry run)") == len(documents) > 20


@on_the_session_loop
async def test_the_api_server_accepts_the_definitions_of_the_chart(helm: Helm, control_plane: ControlPlane) -> None:
    rendered = helm("template", "crds", "charts/searchops-crds")
    said = await control_plane.kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--field-manager=helm",
        "--force-conflicts",
        "-f",
        "-",
        stdin=rendered,
    )
    assert said.count("serverside-applied (server dry run)") == 3


@pytest.mark.parametrize("case", CASES)
@on_the_session_loop
async def test_every_pod_meets_the_restricted_standard(helm: Helm, definitions: ControlPlane, case: str) -> None:
    """The namespace enforces it: the API server itself is asked, with each Pod as a controller would make it."""
    pods = []
    for document in yaml.safe_load_all(render_case(helm, case)):
        if document["kind"] not in {"Deployment", "PodTemplate"}:
            continue
        template = document["spec"]["template"] if document["kind"] == "Deployment" else document["template"]
        spec = {**template["spec"], "serviceAccountName": "default"}
        for absent in ("runtimeClassName", "priorityClassName"):
            spec.pop(absent, None)
        name = f"{case}-{document['metadata']['name']}"
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    assert len(pods) >= 2
    said = await definitions.kubectl(
        "create", "--dry-run=server", "--namespace=searchops-system", "-f", "-", stdin=yaml.safe_dump_all(pods)
    )
    assert said.count("created (server dry run)") == len(pods)
    careless = {**pods[0], "spec": {"containers": [{"name": "a", "image": "a"}]}}
    refused = await definitions.kubectl(
        "create",
        "--dry-run=server",
        "--namespace=searchops-system",
        "-f",
        "-",
        stdin=yaml.safe_dump(careless),
        check=False,
    )
    assert refused == "", "the namespace enforces nothing: this test proves nothing"
