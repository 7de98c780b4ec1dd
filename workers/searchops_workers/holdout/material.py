"""A holdout as the gate Job fetches it, with the catalogue that its labels were given on.

Only the holdout's own URI has passed admission; what ``catalogue.ref`` names has not. A relative reference therefore
stays in the store that the holdout came from, and ``file://`` is read only for a holdout that is at ``file://`` itself,
which admission lets in only where the setting ``allowFileUris`` says so.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchops_workers.digests import bytes_digest, directory_digest
from searchops_workers.engines.stages import BuildStage
from searchops_workers.engines.storage import fetch_directory, read_bytes, stored_bytes
from searchops_workers.holdout.format import Holdout, HoldoutError, load
from searchops_workers.holdout.inputs import HashCheck
from searchops_workers.holdout.verdicts import Reason
from searchops_workers.holdout.verification import CATALOGUE
from searchops_workers.retrieval.documents import ProductError, product_of

if TYPE_CHECKING:
    from pathlib import Path

    from searchops.api.v1alpha1.embedding_model import HoldoutReference

SCHEMES = ("s3", "gs", "file")


class MaterialError(ValueError):
    """A holdout or catalogue that is not what was asked for; the message begins with the field's path.

    Args:
        reason: the verdict's reason.
        message: field, what was seen, what was wanted, what to do.
    """

    def __init__(self, message: str, reason: Reason = Reason.UNREADABLE_INPUT) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Material:
    """A holdout with the catalogue that it was labelled on."""

    holdout: Holdout
    products: tuple[dict[str, Any], ...]
    hashes: tuple[HashCheck, ...]


def fetch_material(
    reference: HoldoutReference,
    work: Path,
    *,
    field: str = "",
    within: tuple[str, ...] | None = None,
    most: int | None = None,
) -> Material:
    """The holdout and its catalogue; another file is another question.

    Args:
        reference: where the holdout is, and its digest.
        work: a folder for what is fetched.
        field: its path in the object that names it; that of a model's holdout where not given.
        within: prefixes that the catalogue's URI must have too; None does not ask.
        most: bytes that the holdout, and its catalogue, may have at most; None does not ask.

    Raises:
        MaterialError: something is there and is not what was asked for: trying again would not help.
        BuildError: stage RETRY, where a store does not answer or a file is not there.
    """
    field = field or f"spec.gate.holdouts[{reference.name}]"
    _bounded(field, reference.uri, most)
    folder = fetch_directory(reference.uri, work / "holdout", absent=BuildStage.RETRY)
    seen = directory_digest(folder)
    if seen != reference.digest:
        raise MaterialError(
            f"{field}.digest: seen {seen} at {reference.uri}, wanted {reference.digest}; a holdout never changes under "
            "its version: restore the files or correct the digest",
            Reason.HASH_MISMATCH,
        )
    try:
        holdout = load(folder)
    except HoldoutError as error:
        raise MaterialError(f"{field}: {error}") from error
    source = catalogue_uri(reference, holdout.catalogue.uri, f"{field}: {CATALOGUE} uri")
    climbs = ".." in source.split("/")
    if within is not None and (climbs or not source.startswith(within)):
        raise MaterialError(
            f"{field}: {CATALOGUE} uri: seen {holdout.catalogue.uri!r}, which is {source}; wanted a file that this "
            f"namespace may read ({', '.join(within) or 'no prefix is allowed'}): keep the catalogue beside the set"
        )
    _bounded(f"{field}: catalogue", source, most)
    content = read_bytes(source)
    digest, wanted = bytes_digest(content), holdout.catalogue.sha256
    if digest != wanted:
        raise MaterialError(
            f"{field}: catalogue {source}: seen {digest}, wanted {wanted} (from {CATALOGUE}); restore the catalogue, "
            "or label another version of the holdout on the new one",
            Reason.HASH_MISMATCH,
        )
    products = parse_products(content, f"{field}: catalogue {source}")
    return Material(holdout, products, (HashCheck("catalogue", wanted, digest),))


def _bounded(field: str, uri: str, most: int | None) -> None:
    if most is not None and (seen := stored_bytes(uri)) > most:
        raise MaterialError(f"{field}: seen {seen} bytes at {uri}; wanted at most {most}: make the set smaller")


def catalogue_uri(reference: HoldoutReference, uri: str, field: str = "") -> str:
    """Where the catalogue is: a relative `uri` is resolved against the holdout's own.

    Args:
        reference: the holdout's.
        uri: as ``catalogue.ref`` has it.
        field: what it is called in an error.

    Raises:
        MaterialError: it names a store that is not served, or one machine's files where those are not allowed.
    """
    field = field or f"spec.gate.holdouts[{reference.name}]: {CATALOGUE} uri"
    scheme, separator, _ = uri.partition("://")
    if "::" in uri or (separator and scheme not in SCHEMES):
        raise MaterialError(
            f"{field}: seen {uri!r}; wanted s3://, gs://, or a path relative to the holdout; write a new version of it"
        )
    own_scheme, _, own_path = reference.uri.partition("://")
    if scheme == "file" and separator and own_scheme != "file":
        raise MaterialError(
            f"{field}: seen {uri!r}; file:// is switched off for a holdout at {own_scheme}://: keep the catalogue in "
            "the store beside the holdout, in a new version of it"
        )
    if separator:
        return uri
    bucket, _, folder = own_path.partition("/")
    return f"{own_scheme}://{bucket}{posixpath.normpath(posixpath.join('/', folder, uri))}"


def parse_products(content: bytes, where: str) -> tuple[dict[str, Any], ...]:
    """Products of NDJSON, one a line; empty lines are passed over.

    Raises:
        MaterialError: naming the line, what was seen and what is wanted; or that there is no product.
    """
    products = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            products.append(product_of(json.loads(line)))
        except ProductError as error:
            raise MaterialError(f"{where}:{number}: {error}") from error
        except ValueError as error:
            seen = line[:60].decode(errors="replace").strip()
            raise MaterialError(
                f"{where}:{number}: {seen!r} is no JSON ({error}); wanted one product object a line; correct the line "
                "in a new version of the holdout"
            ) from error
    if not products:
        raise MaterialError(f"{where}: seen no product; wanted the catalogue that the labels were given on; restore it")
    return tuple(products)
