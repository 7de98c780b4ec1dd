"""What a failing object store is told as: by scheme, with a next step, never with a credential, never as absence."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.artifacts import ArtifactStore
from searchops.api.stores import PACKAGES, SCHEMES, lost_bucket, options, problem_with, said, without_secrets
from searchops.runtime.errors import Terminal, Transient
from searchops_workers.engines.stages import BuildError, BuildStage
from searchops_workers.engines.storage import UriArtifacts, fetch_directory, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY_ID = "AKIAEXAMPLEOFNOBODY"
SECRET = "wJalrXUtnFEMI/K7MDENG+example"
S3_REFUSALS = {
    403: ("AccessDenied", f"{KEY_ID} with {SECRET} may not do this"),
    400: ("AuthorizationHeaderMalformed", f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/x, Signature=abc"),
    501: ("NotImplemented", "see https://user:hunter22@store.invalid/help?X-Amz-Signature=abcdef"),
}
LEAKS = (KEY_ID, SECRET, "hunter22", "Signature=abc")


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the status that the server was given, and S3's XML."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        status = self.server.status  # type: ignore[attr-defined]
        code, message = S3_REFUSALS[status]
        length = int(self.headers.get("Content-Length", "0"))
        self.rfile.read(length)
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message.replace('&', '')}</Message></Error>"
        body = b"" if self.command == "HEAD" else xml.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = _refuse  # noqa: N815 - http.server's names

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment of S3 credentials, and no client left over from another endpoint."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    # A worker's own patience would be seconds of waiting between tries that all end alike.
    monkeypatch.setattr("searchops_workers.engines.storage._ATTEMPTS", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield monkeypatch
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=sorted(S3_REFUSALS))
def refusing(s3: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """An S3 server that refuses everything with one status."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.status = request.param  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        s3.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield request.param
        server.shutdown()
        thread.join()


async def test_a_refusal_is_transient_and_says_what_to_do(refusing: int) -> None:
    with pytest.raises(Transient) as caught:
        await ArtifactStore().read("s3://bucket/prod/results/job.json")
    message = str(caught.value)
    assert message.startswith("artifact s3://bucket/prod/results/job.json could not be read: ")
    assert "; wanted an answer from the store behind s3://. " in message
    assert ("Check the credentials" in message) == (refusing == 403)
    assert [leak for leak in LEAKS if leak in message] == []
    assert caught.value.__cause__ is None


def test_a_worker_that_is_refused_tries_again_and_gives_no_verdict(refusing: int, tmp_path: Path) -> None:
    artifacts = UriArtifacts("s3://bucket/m/r1", "s3://bucket/engines")
    for attempt in (
        lambda: write_bytes("s3://bucket/m/r1/probes.json", b"{}"),
        lambda: artifacts.read("manifest.json"),
        lambda: artifacts.find_engine("recipe", tmp_path),
        lambda: fetch_directory("s3://bucket/source", tmp_path / "copy", absent=BuildStage.BAD_CHECKPOINT),
    ):
        with pytest.raises(BuildError, match=r"^s3://bucket/\S+ cannot be (read|written): ") as caught:
            attempt()
        assert caught.value.stage == BuildStage.RETRY, refusing
        assert [leak for leak in LEAKS if leak in str(caught.value)] == []


async def test_an_endpoint_that_is_not_there_is_transient(s3: pytest.MonkeyPatch) -> None:
    s3.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient, match=r"Check the endpoint and networkPolicy\.artifactPorts") as caught:
        await ArtifactStore(timeout=30).read("s3://bucket/key")
    assert [leak for leak in LEAKS if leak in str(caught.value)] == []
    with pytest.raises(BuildError, match="Check the endpoint") as refused:
        write_bytes("s3://bucket/key", b"{}")
    assert refused.value.stage == BuildStage.RETRY


async def test_without_credentials_the_message_says_so(s3: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        s3.delenv(name)
    s3.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient, match=r"NoCredentialsError: .+Check the credentials"):
        await ArtifactStore(timeout=30).read("s3://bucket/key")


async def test_cloud_storage_that_refuses_is_transient(refusing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", os.environ["AWS_ENDPOINT_URL"])
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    with pytest.raises(Transient, match=r"gs://bucket/key could not be read: .+; wanted .+ behind gs://\. ") as caught:
        await ArtifactStore(timeout=30).read("gs://bucket/key")
    assert [leak for leak in LEAKS if leak in str(caught.value)] == [], refusing
    fsspec.get_filesystem_class("gs").clear_instance_cache()


@pytest.mark.parametrize(("scheme", "package"), sorted(PACKAGES.items()))
async def test_a_missing_package_is_named(scheme: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = importlib.import_module("fsspec.registry")._registry
    for known in (scheme, "gcs"):
        monkeypatch.delitem(registered, known, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        Transient, match=rf"{scheme}://a/b could not be read: .+ The image lacks {package}: build it with"
    ):
        await ArtifactStore().read(f"{scheme}://a/b")
    with pytest.raises(BuildError, match=f"The image lacks {package}") as caught:
        write_bytes(f"{scheme}://a/b", b"")
    assert caught.value.stage == BuildStage.RETRY


@pytest.mark.parametrize(
    "uri",
    ["nosuchstore://bucket/key", "simplecache::s3://a/b", "s3://a/b::file://etc", "https://a/b", "/etc/passwd", ""],
)
async def test_a_scheme_that_is_not_served_is_refused_for_good(uri: str) -> None:
    with pytest.raises(Terminal, match=r"InvalidSpec: .*wanted a URI that begins with s3://, gs:// or file://"):
        await ArtifactStore().read(uri)
    with pytest.raises(BuildError, match="wanted a URI that begins with s3://"):
        write_bytes(uri, b"")


@given(st.sampled_from(SCHEMES), st.from_regex(r"[A-Za-z0-9._/-]{1,40}", fullmatch=True))
def test_every_admitted_uri_is_opened_with_bounded_waits(scheme: str, rest: str) -> None:
    uri = f"{scheme}://{rest}"
    assert problem_with(uri) is None
    assert without_secrets(uri) == uri
    told = options(uri, connect=2, read=4, attempts=1)
    assert (told == {}) == (scheme == "file")
    assert told.get("use_listings_cache", False) is False


@given(st.text(max_size=2000))
def test_what_is_said_is_short_and_on_one_line(text: str) -> None:
    line = said(ValueError(text))
    assert line.startswith("ValueError")
    assert "\n" not in line
    assert len(line) <= 320


@pytest.mark.parametrize(
    "text",
    [
        'Could not connect to the endpoint URL: "http://someone:hunter22@store:9000/bucket/key"',
        "GET https://store/bucket/key?X-Amz-Signature=hunter22&X-Amz-Date=1 answered 500",
        "Authorization: Bearer hunter22",
        "AWS4-HMAC-SHA256 Credential=hunter22/x, Signature=hunter22",
        "the key ASIAHUNTER22HUNTER22 has expired",
        "refresh of ya29.hunter22 failed",
    ],
)
def test_nothing_secret_is_said(text: str) -> None:
    line = said(OSError(text))
    assert "hunter22" not in line.lower()
    assert "[redacted]" in line


def test_a_missing_object_is_not_a_lost_bucket() -> None:
    assert lost_bucket(FileNotFoundError("bucket/key")) is False


class Buckets(BaseHTTPRequestHandler):
    """Cloud Storage with no object at all: a bucket is there, gone, or may not be looked into, by its name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status: int
        body: dict[str, object]
        parts = urlsplit(self.path).path.split("/")
        bucket, listing = parts[parts.index("b") + 1], parts[-1] == "o"
        if bucket == "lost":
            status, body = 404, {"error": {"code": 404, "message": "The specified bucket does not exist."}}
        elif parts[-1] == bucket or (listing and bucket == "closed"):
            status, body = 403, {"error": {"code": 403, "message": "no access to storage.buckets.get"}}
        elif listing:
            status, body = 200, {"kind": "storage#objects"}
        else:
            status, body = 404, {"error": {"code": 404, "message": f"No such object: {bucket}"}}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def cloud_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An emulator that has an empty bucket."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Buckets) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("NO_GCE_CHECK", "true")  # no search for a metadata server
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        yield
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("cloud_storage")
async def test_a_lost_bucket_of_cloud_storage_is_unknown_not_absent(tmp_path: Path) -> None:
    with pytest.raises(Transient, match=r"there is no bucket lost.+Create the bucket, or correct the URI"):
        await ArtifactStore(timeout=30).read("gs://lost/results/job.json")
    for attempt in (
        lambda: UriArtifacts("gs://lost/m/r1", "gs://lost/engines").read("manifest.json"),
        lambda: fetch_directory("gs://lost/source", tmp_path / "copy", absent=BuildStage.BAD_CHECKPOINT),
    ):
        with pytest.raises(BuildError, match="Create the bucket") as caught:
            attempt()
        assert caught.value.stage == BuildStage.RETRY


@pytest.mark.usefixtures("cloud_storage")
async def test_an_absent_object_is_absent_where_the_bucket_itself_may_not_be_read(tmp_path: Path) -> None:
    assert await ArtifactStore(timeout=30).read("gs://empty/results/job.json") is None
    for bucket in ("empty", "closed"):
        assert UriArtifacts(f"gs://{bucket}/m/r1", f"gs://{bucket}/engines").read("manifest.json") is None
    with pytest.raises(BuildError, match="seen no folder there") as caught:
        fetch_directory("gs://empty/source", tmp_path / "copy", absent=BuildStage.BAD_CHECKPOINT)
    assert caught.value.stage == BuildStage.BAD_CHECKPOINT
