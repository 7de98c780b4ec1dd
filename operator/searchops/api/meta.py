"""What the three kinds share: the base model, bounded types, conditions, references and selectors.

pydantic is the one source: `searchops.api.crdgen` turns these models into `crds/*.yaml`. Every string, list and map
has a bound, because the API server's CEL cost budget is computed from the bounds and because nothing here may grow
without end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "searchops.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_DURATION = re.compile(r"([0-9]+)(h|m|s|ms)")
FIRST_YEAR, LAST_YEAR = 1970, 9000
"""Years of a time that may be counted with; what others wrote beyond them is no time."""
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
"""A name that is a DNS label: no dots, at most 63 characters."""
ShortText = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=4096)]
Uri = Annotated[str, Field(max_length=1024, pattern=r"^(s3|gs|file)://[^:\s]+(:[^:\s]+)*$")]
"""An artifact URI. Two colons in a row are refused: fsspec would read them as a chain of file systems."""
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
"""sha256 of a file, or of a directory as the sha256 over its sorted lines ``path\\0size\\0sha256\\n``."""
Duration = Annotated[str, Field(max_length=32, pattern=r"^([0-9]{1,6}h|[0-9]{1,8}m|[0-9]{1,10}(s|ms))+$")]
"""A Go-style duration such as ``30m`` or ``1h30m``; the digits keep a moment that far away within the calendar."""
Fraction = Annotated[str, Field(max_length=16, pattern=r"^(0(\.[0-9]+)?|1(\.0+)?)$")]
"""A number from 0 to 1 that must be exact, hence a string."""
Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")]
"""A non-negative decimal number that must be exact, hence a string."""
Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, whole seconds."""
Labels = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=32)
]


@dataclass(frozen=True, slots=True)
class CelRule:
    """One ``x-kubernetes-validations`` entry of the object that declares it."""

    rule: str
    message: str
    field_path: str | None = None
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"] = (
        "FieldValueInvalid"
    )


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One ``additionalPrinterColumns`` entry; priority 1 shows with ``-o wide`` only."""

    name: str
    json_path: str
    type: Literal["string", "integer", "date", "boolean", "number"] = "string"
    priority: int = 0
    description: str = ""


class ApiModel(BaseModel):
    """Base of everything that goes through the API server: camelCase outside, snake_case inside, unknown ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_enum_values=False
    )

    cel_rules: ClassVar[tuple[CelRule, ...]] = ()

    def to_wire(self) -> dict[str, object]:
        """The camelCase form without unset values, as it is written to the API server."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class LabelSelectorRequirement(ApiModel):
    """One expression of a label selector.

    Attributes:
        key: label key.
        operator: how the key's value is compared.
        values: values for In and NotIn; empty for the others.
    """

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32)] = ()


class LabelSelector(ApiModel):
    """A label selector as in core Kubernetes; an empty one matches everything.

    Attributes:
        match_labels: every one of these labels must be there with this value.
        match_expressions: every one of these must hold.
    """

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(_meets(requirement, labels) for requirement in self.match_expressions)


def _meets(requirement: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels


class Condition(ApiModel):
    """A condition in the Kubernetes form: positive polarity, PascalCase reason, a message a person can act on."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z]*$")]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    message: Message = ""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    last_transition_time: Timestamp = "1970-01-01T00:00:00Z"


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]


class ArtifactReference(ApiModel):
    """Something immutable at a URI: its digest is checked before it is used.

    Attributes:
        uri: where it is; s3://, gs:// or, where it is switched on, file://.
        digest: sha256 of the file, or of the directory's sorted lines of path, size and sha256.
    """

    uri: Uri
    digest: Digest


class WorkerReference(ApiModel):
    """The PodTemplate (operator's namespace) that a worker Job takes its Pod from.

    Attributes:
        pod_template: its name; it must carry the label searchops.dev/worker-for with this task.
    """

    pod_template: Name


class ObjectMeta(ApiModel):
    """The parts of ``metadata`` that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


def parse_duration(text: str) -> timedelta:
    """A Go-style duration as a timedelta.

    Raises:
        ValueError: naming the text, where it is no duration.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: wanted numbers with h, m, s or ms, such as 30m or 1h30m")
    return timedelta(seconds=sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, the form of every time in a status."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment that `format_time` (or the API server) wrote.

    Others may have written it too: what comes back can be added to any `Duration` without leaving the calendar.

    Raises:
        ValueError: where the text is no RFC 3339 time, or of a year that nobody means.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of the calendar") from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"{text!r} is no time of ours: wanted a year from {FIRST_YEAR} to {LAST_YEAR}")
    return moment
