"""What pydantic emits and a structural schema refuses is rewritten, or refused with the field's path."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model

from searchops.api.meta import ApiModel, CelRule
from searchops.api.structural_schema import Defaults, SchemaError, attribute_descriptions, structural_schema

Text = Annotated[str, Field(max_length=10)]


class Inner(ApiModel):
    """An inner object.

    Attributes:
        size: how large it is,
            in metres.
    """

    cel_rules: ClassVar[tuple[CelRule, ...]] = (CelRule("self.size > 0", "size is 0", ".size", "FieldValueRequired"),)

    size: Annotated[int, Field(ge=0)] = 3


class Plain(ApiModel):
    """An inner object without defaults."""

    label_text: Text | None = None


class Outer(ApiModel):
    """An outer object."""

    inner: Inner = Field(default_factory=Inner)
    maybe: Inner | None = None
    plain: Plain = Field(default_factory=Plain)
    made: Plain = Field(default_factory=lambda: Plain(label_text="a"))
    one: Literal["only"] = "only"
    port: int | str = 80
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    texts: Annotated[tuple[Text, ...], Field(max_length=2)] = ()
    labels: Annotated[dict[Annotated[str, Field(max_length=5)], Text], Field(max_length=2)] = Field(
        default_factory=dict
    )
    wanted: Annotated[Text, Field(description="said by the field itself")]


def schema_of(model: type[BaseModel], defaults: Defaults = Defaults.EMIT) -> dict[str, Any]:
    return structural_schema(model, "Thing.spec", defaults)


def with_field(annotation: Any, default: Any = ...) -> type[BaseModel]:
    return create_model("Odd", __base__=ApiModel, odd=(annotation, default))


def test_every_rewriting_in_one_golden_schema() -> None:
    inner = {
        "type": "object",
        "description": "An inner object.",
        "x-kubernetes-validations": [
            {"rule": "self.size > 0", "message": "size is 0", "reason": "FieldValueRequired", "fieldPath": ".size"}
        ],
        "properties": {
            "size": {
                "type": "integer",
                "description": "how large it is, in metres.",
                "format": "int64",
                "minimum": 0,
                "default": 3,
            }
        },
    }
    plain = {
        "type": "object",
        "description": "An inner object without defaults.",
        "properties": {"labelText": {"type": "string", "maxLength": 10}},
    }
    assert schema_of(Outer) == {
        "type": "object",
        "description": "An outer object.",
        "required": ["wanted"],
        "properties": {
            "inner": {**inner, "default": {}},
            "maybe": inner,
            "plain": plain,
            "made": {**plain, "default": {"labelText": "a"}},
            "one": {"type": "string", "enum": ["only"], "default": "only"},
            "port": {"x-kubernetes-int-or-string": True, "default": 80},
            "ratio": {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
                "default": 0.5,
            },
            "texts": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 10}},
            "labels": {
                "type": "object",
                "maxProperties": 2,
                "x-kubernetes-validations": [
                    {
                        "rule": "self.all(key, key.size() <= 5)",
                        "message": "keys have at most 5 characters",
                        "reason": "FieldValueInvalid",
                    }
                ],
                "additionalProperties": {"type": "string", "maxLength": 10},
            },
            "wanted": {"type": "string", "description": "said by the field itself", "maxLength": 10},
        },
    }


class Node(ApiModel):
    """A node of a tree."""

    child: Node | None = None


class Defaulted(ApiModel):
    """An item with a default of its own."""

    count: int = 1


@pytest.mark.parametrize(
    ("annotation", "path", "says"),
    [
        pytest.param(str, "odd", "has no bound: give it maxLength", id="unbounded string"),
        pytest.param(tuple[Text, ...], "odd", "has no bound: give it maxItems", id="unbounded list"),
        pytest.param(dict[str, Text], "odd", "has no bound: give it maxProperties", id="unbounded map"),
        pytest.param(Annotated[tuple[str, ...], Field(max_length=2)], "odd[]", "no bound", id="unbounded items"),
        pytest.param(
            Annotated[dict[str, str], Field(max_length=2)],
            "odd{}",
            "no bound: give it maxLength",
            id="unbounded values",
        ),
        pytest.param(Node, "odd.child", "Node contains itself", id="recursion"),
        pytest.param(tuple[int, int], "odd", "a tuple of fixed length", id="fixed tuple"),
        pytest.param(int | bool, "odd", "a union of boolean and integer", id="union of scalars"),
        pytest.param(Inner | Plain, "odd", "a union of object and object", id="union of objects"),
        pytest.param(Any, "odd", "the type is None", id="anything"),
        pytest.param(
            Annotated[dict[str, Any], Field(max_length=2)], "odd", "needs a type for its values", id="free map"
        ),
        pytest.param(Annotated[list[Any], Field(max_length=2)], "odd", "needs one type for its items", id="free list"),
        pytest.param(
            Annotated[frozenset[Text], Field(max_length=2)], "odd", "the API server refuses uniqueItems", id="set"
        ),
        pytest.param(
            Annotated[dict[Annotated[str, Field(min_length=2)], Text], Field(max_length=2)],
            "odd",
            "only a maximum length",
            id="short keys",
        ),
        pytest.param(
            Annotated[tuple[Defaulted, ...], Field(max_length=2)],
            "odd[].count",
            "a default (1) inside the items",
            id="default inside list items",
        ),
        pytest.param(
            Annotated[dict[str, Defaulted], Field(max_length=2)],
            "odd{}.count",
            "a default (1) inside the items",
            id="default inside map values",
        ),
    ],
)
def test_what_has_no_structural_form_is_refused_with_its_path(annotation: Any, path: str, says: str) -> None:
    with pytest.raises(SchemaError) as refused:
        schema_of(with_field(annotation))
    assert refused.value.path == f"Thing.spec.{path}"
    assert str(refused.value).startswith(f"Thing.spec.{path}: ")
    assert says in str(refused.value)


def test_a_discriminated_union_is_refused() -> None:
    class Cat(ApiModel):
        """A cat."""

        kind: Literal["cat"]

    class Dog(ApiModel):
        """A dog."""

        kind: Literal["dog"]

    with pytest.raises(SchemaError, match="a discriminated union"):
        schema_of(with_field(Annotated[Cat | Dog, Field(discriminator="kind")]))


def test_a_status_keeps_its_shape_and_loses_its_defaults() -> None:
    schema = schema_of(Outer, Defaults.DROP)
    assert schema["properties"]["inner"]["properties"]["size"] == {
        "type": "integer",
        "description": "how large it is, in metres.",
        "format": "int64",
        "minimum": 0,
    }
    listed = schema_of(with_field(Annotated[tuple[Defaulted, ...], Field(max_length=2)]), Defaults.DROP)
    assert "default" not in listed["properties"]["odd"]["items"]["properties"]["count"]


def test_a_docstring_is_cut_into_text_and_attributes() -> None:
    text, attributes = attribute_descriptions(
        """First line.

        Second paragraph,
        two lines.

        Attributes:
            one: the first
                and its second line.
            two: the second.

        Raises:
            ValueError: never a field.
        """
    )
    assert text == "First line.\n\nSecond paragraph, two lines."
    assert attributes == {"one": "the first and its second line.", "two": "the second."}
    assert attribute_descriptions(None) == ("", {})


def accepts(node: dict[str, Any], value: int) -> bool:
    """Bounds as the API server reads them."""
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and (value < low or (node.get("exclusiveMinimum") and value == low)):
        return False
    return not (high is not None and (value > high or (node.get("exclusiveMaximum") and value == high)))


bounds = st.dictionaries(st.sampled_from(["ge", "gt", "le", "lt"]), st.integers(-5, 5))


@given(limits=bounds, value=st.integers(-7, 7))
def test_bounds_mean_the_same_on_both_sides(limits: dict[str, int], value: int) -> None:
    annotation = Annotated[int, Field(**limits)]
    try:
        TypeAdapter(annotation).validate_python(value)
        wanted = True
    except ValidationError:
        wanted = False
    node = schema_of(with_field(annotation))["properties"]["odd"]
    assert accepts(node, value) == wanted
