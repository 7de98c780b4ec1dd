"""A container's environment, resolved as the kubelet does: values, field references, keys of Secrets and ConfigMaps."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]
_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_KEYED_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_KINDS: Final = {
    "secretKeyRef": "Secret",
    "configMapKeyRef": "ConfigMap",
    "secretRef": "Secret",
    "configMapRef": "ConfigMap",
}


class ConfigError(Exception):
    """The container cannot be started as it is; the kubelet's ``CreateContainerConfigError``."""


@dataclass(frozen=True, slots=True)
class SourceRef:
    """A Secret or ConfigMap that a container reads."""

    kind: str
    name: str

    @property
    def plural(self) -> str:
        """The resource in API paths."""
        return f"{self.kind.lower()}s"


def sources(container: Json) -> list[SourceRef]:
    """Every Secret and ConfigMap that the environment names, each once, in order; optional ones too."""
    found: dict[SourceRef, None] = {}
    for entry in container.get("envFrom") or ():
        for key in ("secretRef", "configMapRef"):
            if key in entry:
                found[SourceRef(_KINDS[key], entry[key]["name"])] = None
    for variable in container.get("env") or ():
        for key in ("secretKeyRef", "configMapKeyRef"):
            if key in (variable.get("valueFrom") or {}):
                found[SourceRef(_KINDS[key], variable["valueFrom"][key]["name"])] = None
    return list(found)


def resolve(
    pod: Json, container: Json, objects: Mapping[SourceRef, Json | None], base: Mapping[str, str]
) -> dict[str, str]:
    """The environment of `container`: `base`, then ``envFrom``, then ``env``, later ones over earlier ones.

    Args:
        pod: the Pod, for field references.
        container: its container.
        objects: what `sources` named, None where it does not exist.
        base: what an image would bring (PATH, HOME).

    Raises:
        ConfigError: naming the object or key that is not there, or a reference that the sandbox does not serve.
    """
    declared: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        declared.update(_whole(entry, objects))
    for variable in container.get("env") or ():
        value = _value(pod, variable, objects, declared)
        if value is not None:
            declared[variable["name"]] = value
    return {**base, **declared}


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` by the environment; an unknown name stays as it is, and ``$$`` is a dollar sign."""

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return _REFERENCE.sub(fill, text)


def command_line(container: Json, environment: Mapping[str, str]) -> list[str]:
    """``command`` and ``args``, expanded.

    Raises:
        ConfigError: without a command, since no image says what to run.
    """
    command = list(container.get("command") or ())
    if not command:
        raise ConfigError(f"container {container['name']!r} has no command; the sandbox has no image to take one from")
    return [expand(part, environment) for part in [*command, *(container.get("args") or ())]]


def _whole(entry: Json, objects: Mapping[SourceRef, Json | None]) -> Iterator[tuple[str, str]]:
    for key in ("secretRef", "configMapRef"):
        if key not in entry:
            continue
        source = SourceRef(_KINDS[key], entry[key]["name"])
        found = objects.get(source)
        if found is None:
            if entry[key].get("optional"):
                return
            raise ConfigError(f"{source.kind} {source.name!r} not found")
        for name in sorted(_data(found)):
            yield entry.get("prefix", "") + name, _decoded(source, found, name)


def _value(pod: Json, variable: Json, objects: Mapping[SourceRef, Json | None], known: Mapping[str, str]) -> str | None:
    origin = variable.get("valueFrom")
    if not origin:
        return expand(variable.get("value", ""), known)
    if "fieldRef" in origin:
        return _field(pod, origin["fieldRef"]["fieldPath"])
    for key in ("secretKeyRef", "configMapKeyRef"):
        if key in origin:
            return _keyed(origin[key], SourceRef(_KINDS[key], origin[key]["name"]), objects)
    raise ConfigError(f"env {variable['name']}: the sandbox does not serve {', '.join(sorted(origin))}")


def _keyed(reference: Json, source: SourceRef, objects: Mapping[SourceRef, Json | None]) -> str | None:
    found, key = objects.get(source), reference["key"]
    if found is not None and key in _data(found):
        return _decoded(source, found, key)
    if reference.get("optional"):
        return None
    if found is None:
        raise ConfigError(f"{source.kind} {source.name!r} not found")
    raise ConfigError(f"couldn't find key {key!r} in {source.kind} {source.name!r}")


def _field(pod: Json, path: str) -> str:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if keyed := _KEYED_FIELD.fullmatch(path):
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP", "127.0.0.1"),
        "status.podIP": status.get("podIP", "127.0.0.1"),
    }
    if path not in fields:
        raise ConfigError(f"the sandbox does not serve fieldPath {path!r}; it knows {', '.join(sorted(fields))}")
    return str(fields[path])


def _data(found: Json) -> Json:
    return found.get("data") or {}


def _decoded(source: SourceRef, found: Json, key: str) -> str:
    value = str(_data(found)[key])
    return base64.b64decode(value).decode() if source.kind == "Secret" else value
