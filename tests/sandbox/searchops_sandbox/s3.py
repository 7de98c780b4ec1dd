"""An S3 server of moto on the loopback, and the environment that points every AWS client at it and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from typing import TYPE_CHECKING
from unittest import mock

import fsspec
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a-secret-access-key-of-nobody"


def environment(endpoint: str) -> dict[str, str]:
    """What a Pod would get by `envFrom`; files and metadata servers of the machine are kept out."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEOFNOBODY",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """A running server with an empty bucket of a name of its own, since moto keeps a process's; yields its URI."""
    bucket = f"searchops-{uuid.uuid4().hex[:8]}"
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with mock.patch.dict(os.environ, environment(f"http://{host}:{port}")):
            fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
            yield f"s3://{bucket}"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()
