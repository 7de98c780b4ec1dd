"""Documents of our kinds for a real API server: the full ones, each way to spoil one, and what is said to it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from searchops_sandbox.kubernetes_api import KubernetesApi

ROOT = Path(__file__).parents[2]
NAMESPACE = "merchants-eu"
Json = dict[str, Any]


def copy_of(value: Any) -> Any:
    """A deep copy in which YAML's aliases no longer share one value."""
    return json.loads(json.dumps(value))


def documents(folder: str) -> dict[str, Json]:
    """The YAML files of a folder by the plural in their names."""
    return {
        path.name.split(".")[0]: copy_of(yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / folder).glob("*.yaml"))
    }


DEFINITIONS = documents("crds")
FULL = documents("tests/unit/api/full_documents")
SCHEMAS = {
    plural: document["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for plural, document in DEFINITIONS.items()
}


def collection_of(plural: str) -> str:
    """The path of a kind's collection."""
    scope = f"namespaces/{NAMESPACE}/" if DEFINITIONS[plural]["spec"]["scope"] == "Namespaced" else ""
    return f"/apis/searchops.dev/v1alpha1/{scope}{plural}"


async def refusal(api: KubernetesApi, plural: str, document: Json, *, status: bool = False) -> str:
    """What the API server says to a document in a dry run; empty where it takes it."""
    try:
        if status:
            path = f"{collection_of(plural)}/{document['metadata']['name']}/status?dryRun=All&fieldValidation=Strict"
            await api.replace(path, document)
        else:
            body = {key: value for key, value in document.items() if key != "status"}
            await api.create(collection_of(plural), body, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        assert error.status in (400, 422), error
        return str(error)
    return ""


class BadField(NamedTuple):
    """One violated bound: where it is set, how, and what the answer must name."""

    steps: tuple[str | int, ...]
    value: Any
    says: str

    @property
    def path(self) -> str:
        """The path as the API server writes it."""
        return re.sub(r"\.\[", "[", ".".join(f"[{step}]" if isinstance(step, int) else step for step in self.steps))


MISSING = object()


def bad_fields(schema: Json, value: Any, steps: tuple[str | int, ...]) -> Iterator[BadField]:
    """For every bound of every field that the document has: a value that violates it."""
    yield from _bad_scalars(schema, value, steps)
    if schema["type"] == "array":
        yield from _bad_lists(schema, value, steps)
    if "additionalProperties" in schema:
        many = {f"key{index}": next(iter(value.values())) for index in range(schema["maxProperties"] + 1)}
        yield BadField(steps, many, "must have at most")
        for key, inner in value.items():
            yield from bad_fields(schema["additionalProperties"], inner, (*steps, key))
    for name in schema.get("required", ()):
        yield BadField((*steps, name), MISSING, "Required value")
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            yield from bad_fields(inner, value[name], (*steps, name))


def _bad_scalars(schema: Json, value: Any, steps: tuple[str | int, ...]) -> Iterator[BadField]:
    violations: dict[str, tuple[Callable[[Any], Any], str]] = {
        "maxLength": (lambda bound: str(value) + "a" * bound, "Too long"),
        "minLength": (lambda bound: "a" * (bound - 1), "chars long"),
        "pattern": (lambda bound: "~ ~", "should match"),
        "enum": (lambda bound: "~", "Unsupported value"),
        "maximum": (lambda bound: bound + 1, "less than or equal to"),
        "minimum": (lambda bound: bound - 1, "greater than or equal to"),
    }
    for keyword, (violate, says) in violations.items():
        if keyword in schema:
            yield BadField(steps, violate(schema[keyword]), says)
    if schema.get("format") == "date-time":
        yield BadField(steps, "yesterday", "date-time")
    if schema["type"] in {"boolean", "integer", "number", "string"}:
        yield BadField(steps, 7 if schema["type"] == "string" else "seven", "must be of type")


def _bad_lists(schema: Json, value: list[Any], steps: tuple[str | int, ...]) -> Iterator[BadField]:
    yield BadField(steps, value[:1] * (schema["maxItems"] + 1), "must have at most")
    if "minItems" in schema:
        yield BadField(steps, [], "at least")
    if schema.get("x-kubernetes-list-type") == "map":
        yield BadField((*steps, len(value)), value[0], "Duplicate value")
    for index, item in enumerate(value):
        yield from bad_fields(schema["items"], item, (*steps, index))


def with_bad_field(document: Json, bad: BadField) -> Json:
    """A copy of the document with one violation."""
    result = copy.deepcopy(document)
    node: Any = result
    *parents, last = bad.steps
    for step in parents:
        node = node[step]
    if bad.value is MISSING:
        node.pop(last)
    elif isinstance(node, list) and last == len(node):
        node.append(bad.value)
    else:
        node[last] = bad.value
    return result


async def not_refused(api: KubernetesApi, plural: str, document: Json, bad: BadField) -> str:
    """Empty where the violation is refused with the field's path and the reason, else what was seen instead."""
    answer = await refusal(api, plural, with_bad_field(document, bad), status=bad.steps[0] == "status")
    if bad.path in answer and bad.says in answer:
        return ""
    return f"{bad.path} = {bad.value!r:.60}: wanted {bad.says!r}, seen {answer[:300]!r}"
