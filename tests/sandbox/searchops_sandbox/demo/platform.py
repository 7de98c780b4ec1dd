"""The installed platform: sandbox, charts, the operator under its own ServiceAccount, the gateway."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from searchops_sandbox.demo.buckets import REPOSITORY, Buckets
from searchops_sandbox.demo.kept_engines import share_engines
from searchops_sandbox.mounted_secret import MountedSecret
from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess, SandboxError
from searchops_sandbox.registration import NAMESPACE
from searchops_sandbox.secrets_seen import SecretRecorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops_sandbox.sandbox import Sandbox

RELEASE = "searchops"
SERVICE_ACCOUNT = "searchops"
FLEET = "demo"
GATEWAY_SECRET = "searchops-gateway"
READY_SECONDS = 60.0
SETTLE_SECONDS = 5.0


class Platform:
    """Everything that runs in the demo and in end-to-end tests.

    Args:
        sandbox: a sandbox that is started and stopped by this object.
        environment: further settings of the operator.
    """

    def __init__(self, sandbox: Sandbox, *, environment: Mapping[str, str] | None = None) -> None:
        self.sandbox = sandbox
        self.buckets = Buckets(sandbox.folder / "buckets")
        self.gateway_port = free_port()
        self._environment = dict(environment or {})
        self._probe_port = free_port()
        self._operator: ManagedProcess | None = None
        self._gateway: ManagedProcess | None = None
        self._mounted: MountedSecret | None = None
        self._recorder = SecretRecorder(sandbox.api)

    async def __aenter__(self) -> Self:
        try:
            await self.sandbox.start()
            await self._recorder.start()
            await self.install()
            await self.start_operator()
            await self.start_gateway()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop operator and gateway, then the sandbox."""
        for process in (self._operator, self._gateway):
            if process is not None:
                await process.stop()
        if self._mounted is not None:
            await self._mounted.stop()
        await self._recorder.stop()
        await self.sandbox.close()

    @property
    def artifacts(self) -> str:
        """URI prefix of the operator's artifacts."""
        return f"file://{self.sandbox.artifacts}"

    @property
    def pages(self) -> tuple[str, ...]:
        """What programs scrape: the metrics of operator and gateway, where they run."""
        running = [(self._operator, f"http://127.0.0.1:{self._probe_port}"), (self._gateway, self.gateway_url)]
        return tuple(f"{url}/metrics" for process, url in running if process is not None and process.running)

    @property
    def secrets_seen(self) -> tuple[tuple[str, str], ...]:
        """Every secret that a Secret has held since the start, and where; for the search for leaks."""
        return self._recorder.seen

    @property
    def gateway_url(self) -> str:
        """Base address of the gateway."""
        return f"http://127.0.0.1:{self.gateway_port}"

    async def install(self) -> None:
        """Both charts, rendered by helm and applied by kubectl on the server's side."""
        share_engines(self.sandbox.artifacts)
        cluster = self.sandbox.cluster
        crds = await cluster.helm("template", "searchops-crds", str(REPOSITORY / "charts" / "searchops-crds"))
        await self.apply(crds)
        values = self.sandbox.folder / "values.json"
        settings = {"fleet": FLEET, "artifacts": self.artifacts, "allowFileUris": True, "cataloguePrefixes": []}
        values.write_text(json.dumps({"settings": settings, "image": {"registry": "registry.invalid"}}))
        rendered = await cluster.helm(
            "template", RELEASE, str(REPOSITORY / "charts" / "searchops"), "--namespace", NAMESPACE, "-f", str(values)
        )
        await cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        await self.apply(rendered, namespace=NAMESPACE)

    async def apply(self, manifest: str, *, namespace: str | None = None) -> str:
        """Server-side apply, as Argo CD does."""
        arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-"]
        if namespace is not None:
            arguments += ["--namespace", namespace]
        return await self.sandbox.cluster.kubectl(*arguments, stdin=manifest)

    async def start_operator(self) -> None:
        """The operator with exactly its chart's rights."""
        kubeconfig = await self.sandbox.cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "SEARCHOPS_KUBECONFIG": str(kubeconfig),
            "SEARCHOPS_FLEET": FLEET,
            "SEARCHOPS_NAMESPACE": NAMESPACE,
            "SEARCHOPS_IDENTITY": f"demo-{os.getpid()}-{self._probe_port}",
            "SEARCHOPS_ARTIFACTS": self.artifacts,
            "SEARCHOPS_ALLOW_FILE_URIS": "true",
            "SEARCHOPS_GATEWAY_URL": self.gateway_url,
            "SEARCHOPS_PROBE_PORT": str(self._probe_port),
            "SEARCHOPS_METRICS_PORT": str(self._probe_port),
            "SEARCHOPS_BINDING_SETTLE_SECONDS": str(SETTLE_SECONDS),
            "SEARCHOPS_CLOCK_SKEW_SECONDS": "0",  # one machine, one clock
            "SEARCHOPS_LOG_LEVEL": "INFO",
            **self._environment,
        }
        self._operator = ManagedProcess(
            "operator", [sys.executable, "-m", "searchops"], log=self.sandbox.folder / "operator.log", env=environment
        )
        await self._operator.start()
        await self._operator.wait_until(self._operator_ready, timeout=READY_SECONDS)

    async def _operator_ready(self) -> bool:
        return await _answers(f"http://127.0.0.1:{self._probe_port}/readyz")

    async def kill_operator(self) -> None:
        """SIGKILL: what a node's failure looks like."""
        if self._operator is not None:
            await self._operator.kill()

    @property
    def operator(self) -> ManagedProcess:
        """The operator's process.

        Raises:
            SandboxError: it was not started.
        """
        if self._operator is None:
            raise SandboxError("the operator was not started")
        return self._operator

    async def start_gateway(self) -> None:
        """One gateway; its only credential is the Secret that the operator writes for it."""
        mounted = self.sandbox.folder / "gateway-credentials"
        self._mounted = MountedSecret(self.sandbox.api, NAMESPACE, GATEWAY_SECRET, mounted)
        await self._mounted.start()
        cells = {name: {"url": cell.rest_url} for name, cell in self.sandbox.cells.items()}
        environment = {
            **os.environ,
            "SEARCHOPS_GATEWAY_CELLS": json.dumps(cells),
            "SEARCHOPS_GATEWAY_SERVERS": json.dumps([item.grpc_url for item in self.sandbox.pools["default"]]),
            "SEARCHOPS_GATEWAY_PORT": str(self.gateway_port),
            "SEARCHOPS_GATEWAY_BINDING_SECONDS": "1.0",
            "SEARCHOPS_GATEWAY_CREDENTIALS": str(mounted / "credentials.json"),
        }
        worker = Path(sys.executable).parent / "searchops-worker"
        self._gateway = ManagedProcess(
            "gateway", [str(worker), "gateway"], log=self.sandbox.folder / "gateway.log", env=environment
        )
        await self._gateway.start()
        await self._gateway.wait_until(self._gateway_ready, timeout=READY_SECONDS)

    async def _gateway_ready(self) -> bool:
        return await _answers(f"{self.gateway_url}/readyz")

    async def objects(self, plural: str) -> list[dict[str, Any]]:
        """Every object of one of our kinds."""
        async with self.sandbox.api() as api:
            answer = await api.get(f"/apis/searchops.dev/v1alpha1/{plural}")
        return list(answer.get("items", []))

    async def secret(self, namespace: str, name: str) -> dict[str, str]:
        """A Secret's data, decoded."""
        import base64

        async with self.sandbox.api() as api:
            answer = await api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in answer.get("data", {}).items()}

    def tail(self, lines: int = 30) -> str:
        """The last lines of the logs that matter."""
        parts = [f"--- {process.name}\n{process.tail(lines)}" for process in (self._operator, self._gateway) if process]
        return "\n".join([*parts, self.sandbox.tail(8)])


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session, session.get(url) as answer:
            return answer.status == 200
    except (TimeoutError, aiohttp.ClientError):
        return False
