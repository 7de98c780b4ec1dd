"""From a pydantic model to a Kubernetes structural schema.

pydantic emits constructs that a CustomResourceDefinition refuses (``$ref``, ``anyOf`` with null, numeric exclusive
bounds, ``const``). Each is rewritten here, and what cannot be rewritten is refused with the field's path, so that a
mistake in a model is found where the model is written and not where the definition is applied.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, NoDefault
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import core_schema

    from searchops.api.meta import CelRule

VALIDATIONS = "x-kubernetes-validations"
INT_OR_STRING = "x-kubernetes-int-or-string"
INT_OR_STRING_TYPES = ["integer", "string"]

_DROPPED = frozenset({"title", "examples", "deprecated"})
_ORDER = (
    "type",
    "description",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "default",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    VALIDATIONS,
    "required",
    "properties",
    "items",
    "additionalProperties",
)
_REWRITTEN = frozenset(
    {
        "$ref",
        "anyOf",
        "const",
        "default",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "items",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
    }
)
_KEPT = frozenset(_ORDER) - _REWRITTEN
_REASONS = {
    "prefixItems": "a tuple of fixed length has no structural form: use a list of one type",
    "oneOf": "a union of objects has no structural form: use optional fields and a CEL rule",
    "discriminator": "a discriminated union has no structural form: use optional fields and a CEL rule",
    "allOf": "an intersection has no structural form: use one class",
    "not": "a negation has no structural form: use a CEL rule",
    "uniqueItems": "the API server refuses uniqueItems: use a list-map, or a CEL rule",
    "patternProperties": "patterns of keys have no structural form: use a CEL rule",
}
_ATTRIBUTE = re.compile(r"^ {4,}(?P<name>[a-z_][a-z0-9_]*): (?P<text>.+)$")
_SECTION = re.compile(r"^[A-Z][A-Za-z]+:$")


class Defaults(Enum):
    """What happens to a default.

    Attributes:
        EMIT: it goes into the schema (spec).
        REFUSE: it is refused (inside items of lists and maps: a GitOps tool would see drift for ever).
        DROP: it is left out (status: the operator writes every value itself).
    """

    EMIT = "emit"
    REFUSE = "refuse"
    DROP = "drop"


class SchemaError(ValueError):
    """A field that cannot be expressed as a structural schema."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def structural_schema(model: type[BaseModel], path: str, defaults: Defaults) -> dict[str, Any]:
    """The structural schema of a model.

    Args:
        model: the class of the part, such as a spec.
        path: where the part stands in the object, such as ``SearchTenant.spec``; errors begin with it.
        defaults: what happens to default values.

    Raises:
        SchemaError: naming the field, where something has no structural form or no bound.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator, mode="validation")
    return _Converter(raw.pop("$defs", {})).convert(raw, path, defaults)


def validation(rule: CelRule) -> dict[str, Any]:
    """One ``x-kubernetes-validations`` entry."""
    entry: dict[str, Any] = {"rule": rule.rule, "message": rule.message, "reason": rule.reason}
    if rule.field_path is not None:
        entry["fieldPath"] = rule.field_path
    return entry


def attribute_descriptions(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The text of a Google-style docstring, and what its ``Attributes:`` section says of each field."""
    lines = (docstring or "").expandtabs().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    lines = [line.strip() if index == 0 else line[margin:].rstrip() for index, line in enumerate(lines)]
    text: list[str] = []
    found: dict[str, str] = {}
    section = current = ""
    for line in lines:
        if _SECTION.match(line):
            section, current = line, ""
        elif not section:
            text.append(line)
        elif section == "Attributes:" and (match := _ATTRIBUTE.match(line)):
            current = match["name"]
            found[current] = match["text"].strip()
        elif current and line.strip():
            found[current] += " " + line.strip()
    paragraphs = "\n".join(text).strip().split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in paragraphs), found


class _Generator(GenerateJsonSchema):
    """pydantic's generator, plus CEL rules, descriptions from docstrings and defaults made by factories."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        model = schema["cls"]
        text, attributes = attribute_descriptions(model.__doc__)
        if text:
            result["description"] = text
        for name, field in model.model_fields.items():
            if name in attributes and field.description is None:
                result["properties"][field.alias or name]["description"] = attributes[name]
        if rules := getattr(model, "cel_rules", ()):
            result[VALIDATIONS] = [validation(rule) for rule in rules]
        return result

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        if factory is not None and not schema.get("default_factory_takes_data"):
            return factory()  # type: ignore[call-arg]
        return schema.get("default", NoDefault)

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
        return to_jsonable_python(dft)


class _Converter:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._open: list[str] = []

    def convert(self, raw: Mapping[str, Any], path: str, defaults: Defaults) -> dict[str, Any]:
        """One node, with everything under it."""
        reference = raw.get("$ref")
        if reference is None:
            return self._node(_without_null(raw), path, defaults)
        name = str(reference).removeprefix("#/$defs/")
        if name in self._open:
            raise SchemaError(path, f"{name} contains itself: a structural schema cannot recurse")
        self._open.append(name)
        try:
            siblings = {key: value for key, value in raw.items() if key != "$ref"}
            return self.convert({**self._definitions[name], **siblings}, path, defaults)
        finally:
            self._open.pop()

    def _node(self, raw: Mapping[str, Any], path: str, defaults: Defaults) -> dict[str, Any]:
        if "$ref" in raw:
            return self.convert(raw, path, defaults)
        if "anyOf" in raw:
            return _union(raw, path, defaults)
        for keyword in raw:
            if keyword not in _KEPT | _REWRITTEN | _DROPPED:
                reason = _REASONS.get(keyword, "it has no structural form")
                raise SchemaError(path, f"the schema has {keyword!r}: {reason}")
        node = {key: value for key, value in raw.items() if key in _KEPT}
        _rewrite_scalars(raw, node, path)
        kind = node.get("type")
        if kind == "array":
            node["items"] = self.convert(_items(raw, path), f"{path}[]", _inside_items(defaults))
        elif kind == "object" and "properties" in raw:
            self._properties(raw, node, path, defaults)
        elif kind == "object":
            self._map(raw, node, path, defaults)
        _check_bounds(node, path)
        _place_default(raw, node, path, defaults)
        return {key: node[key] for key in _ORDER if key in node}

    def _properties(self, raw: Mapping[str, Any], node: dict[str, Any], path: str, defaults: Defaults) -> None:
        if raw.get("additionalProperties"):
            raise SchemaError(path, "an object has either named fields or free keys, not both: forbid extra fields")
        node["properties"] = {
            name: self.convert(schema, f"{path}.{name}", defaults) for name, schema in raw["properties"].items()
        }
        if required := raw.get("required"):
            node["required"] = list(required)

    def _map(self, raw: Mapping[str, Any], node: dict[str, Any], path: str, defaults: Defaults) -> None:
        values = raw.get("additionalProperties")
        if not isinstance(values, dict) or not values:
            raise SchemaError(path, "an object without named fields needs a type for its values")
        node["additionalProperties"] = self.convert(values, f"{path}{{}}", _inside_items(defaults))
        names = {key: value for key, value in raw.get("propertyNames", {}).items() if key not in _DROPPED | {"type"}}
        if limit := names.pop("maxLength", None):
            rule = {"rule": f"self.all(key, key.size() <= {limit})", "message": f"keys have at most {limit} characters"}
            node.setdefault(VALIDATIONS, []).append({**rule, "reason": "FieldValueInvalid"})
        if names:
            raise SchemaError(path, f"keys are bound by {sorted(names)}: only a maximum length can be expressed")


def _union(raw: Mapping[str, Any], path: str, defaults: Defaults) -> dict[str, Any]:
    types = sorted(str(option.get("type", "object")) for option in raw["anyOf"])
    if types != INT_OR_STRING_TYPES:
        raise SchemaError(path, f"a union of {' and '.join(types)} has no structural form: only int | str has")
    node = {INT_OR_STRING: True, **{key: raw[key] for key in ("description",) if key in raw}}
    _place_default(raw, node, path, defaults)
    return node


def _without_null(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``anyOf[T, null]`` as an optional T: in Kubernetes, absent and null are one."""
    options = [option for option in raw.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) != 1:
        return {**raw, "anyOf": options} if options else raw
    rest = {key: value for key, value in raw.items() if key != "anyOf"}
    return {**options[0], **rest}


def _items(raw: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    items = raw.get("items")
    if not isinstance(items, dict) or not items:
        raise SchemaError(path, "a list needs one type for its items")
    return items


def _inside_items(defaults: Defaults) -> Defaults:
    return Defaults.REFUSE if defaults is Defaults.EMIT else defaults


def _rewrite_scalars(raw: Mapping[str, Any], node: dict[str, Any], path: str) -> None:
    if "const" in raw:
        node["enum"] = [raw["const"]]
    if "type" not in node and "enum" in node and all(isinstance(value, str) for value in node["enum"]):
        node["type"] = "string"
    if node.get("type") not in {"string", "integer", "number", "boolean", "array", "object"}:
        raise SchemaError(path, f"the type is {node.get('type')!r}: wanted string, integer, number, boolean, list, map")
    for exclusive, plain, tighter in (("exclusiveMinimum", "minimum", max), ("exclusiveMaximum", "maximum", min)):
        if exclusive in raw:
            bound = raw[exclusive]
            if plain not in raw or tighter(raw[plain], bound) == bound:
                node[plain] = bound
                node[exclusive] = True
    if node["type"] == "integer":
        node.setdefault("format", "int64")


def _check_bounds(node: Mapping[str, Any], path: str) -> None:
    wanted = {"string": ("maxLength", "enum"), "array": ("maxItems",)}.get(node["type"], ())
    if node["type"] == "object" and "additionalProperties" in node:
        wanted = ("maxProperties",)
    if wanted and not any(bound in node for bound in wanted):
        raise SchemaError(path, f"this {node['type']} has no bound: give it {' or '.join(wanted)}")


def _place_default(raw: Mapping[str, Any], node: dict[str, Any], path: str, defaults: Defaults) -> None:
    """An empty default is left out, since absent means the same; an empty object stays where it brings inner ones."""
    value = raw.get("default")
    if defaults is Defaults.DROP or value is None or value in ("", [], ()):
        return
    if value == {} and not any("default" in inner for inner in node.get("properties", {}).values()):
        return
    if defaults is Defaults.REFUSE:
        raise SchemaError(
            path, f"a default ({value!r}) inside the items of a list or map shows as drift: make it optional"
        )
    node["default"] = value
