"""A real Kubernetes control plane on loopback: etcd, API server and controller manager, with RBAC, ready in seconds."""

from __future__ import annotations

import asyncio
import csv
import json
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from searchops_sandbox.audit import POLICY
from searchops_sandbox.binaries import CONTROL_PLANE, ensure_binaries
from searchops_sandbox.certificates import Certificates, make_certificates
from searchops_sandbox.cluster import Cluster, write_kubeconfig
from searchops_sandbox.kubernetes_api import ApiError, Connection
from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess, SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROLLERS: Final = (
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "ttl-after-finished-controller",
    "clusterrole-aggregation-controller",
    "endpointslice-controller",
    "validatingadmissionpolicy-status-controller",
)
ISSUER: Final = "https://kubernetes.default.svc"
_READY_SECONDS = 90.0
_STOP_SECONDS = 20.0
_DRAIN_SECONDS = 4.0
_PORT_ATTEMPTS = 3
_PORT_TAKEN = "address already in use"


class ControlPlane(Cluster):
    """etcd → API server → controller manager, on free ports, in one folder.

    Stopped in the opposite order, waiting for each: an API server whose etcd went first hangs for minutes. Ports,
    certificates and data survive a stop and a new start of the same object.

    Args:
        folder: data, logs and kubeconfigs; a temporary one, removed at the end, where it is None.
        audited: keeps what ServiceAccounts write to our kinds in `audit_log`.
    """

    def __init__(self, folder: Path | None = None, *, audited: bool = False) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="searchops-control-plane-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(self.folder / "admin.kubeconfig", folder=self.folder)
        self.name = "control-plane"
        self.audit_log = self.folder / "audit.log"
        self._audited = audited
        self._token = secrets.token_urlsafe(24)
        self._choose_ports()
        self._ever_ready = False
        self._certificates: Certificates | None = None
        self._binaries: dict[str, Path] = {}
        self._etcd: ManagedProcess | None = None
        self._api_server: ManagedProcess | None = None
        self._controllers: ManagedProcess | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return f"https://127.0.0.1:{self._api_port}"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run."""
        return {part.name: part.pid for part in self._parts() if part.running and part.pid is not None}

    async def start(self) -> None:
        """Start everything and wait until the default ServiceAccount exists, so that Pods can be made.

        A port that somebody took since it was found free is replaced, at the first start only.

        Raises:
            SandboxError: where a program cannot be built, or with the end of its log where it does not come up.
        """
        self._binaries = await asyncio.to_thread(ensure_binaries, CONTROL_PLANE)
        self._certificates = make_certificates(self.folder / "pki")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                await self._start_parts()
                return
            except SandboxError as error:
                await self.stop()
                if self._ever_ready or attempt == _PORT_ATTEMPTS or _PORT_TAKEN not in str(error):
                    raise
                self._choose_ports()
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """Controller manager, then API server, then etcd, waiting for each; what does not end is killed.

        An API server with open watches waits a minute for them: it gets seconds, since all that it knows is in etcd.
        """
        for part in reversed(self._parts()):
            await part.stop(grace=_DRAIN_SECONDS if part is self._api_server else _STOP_SECONDS)

    async def close(self) -> None:
        """Stop, and remove the folder where it was a temporary one."""
        await self.stop()
        if self._temporary:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def stop_api_server(self) -> None:
        """An outage: only the API server goes away."""
        if self._api_server is not None:
            await self._api_server.stop(grace=_DRAIN_SECONDS)

    async def start_api_server(self) -> None:
        """The end of the outage: the same address and data again."""
        await self._start_api_server()

    def tail(self, lines: int = 20) -> str:
        """The last lines of every part's log, for messages of failed tests."""
        return "\n".join(f"--- {part.name}\n{part.tail(lines)}" for part in self._parts())

    def _choose_ports(self) -> None:
        self._etcd_port, self._peer_port, self._api_port = free_port(), free_port(), free_port()

    async def _start_parts(self) -> None:
        self._write_tokens()
        authority = self._files().authority.read_text()
        write_kubeconfig(self.kubeconfig, Connection(self.server, authority=authority, token=self._token), user="admin")
        await self._start_etcd()
        await self._start_api_server()
        await self._start_controllers()
        self._ever_ready = True

    async def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._etcd = self._process(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        await self._etcd.start()
        await self._etcd.wait_until(self._etcd_healthy, timeout=_READY_SECONDS)

    async def _start_api_server(self) -> None:
        files = self._files()
        self._api_server = self._process(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._api_port}",
            f"--tls-cert-file={files.server}",
            f"--tls-private-key-file={files.server_key}",
            f"--token-auth-file={self._tokens()}",
            "--authorization-mode=Node,RBAC",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={files.tokens_key}",
            f"--service-account-signing-key-file={files.tokens_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            *self._audit(),
        )
        await self._api_server.start()
        await self._api_server.wait_until(self._api_ready, timeout=_READY_SECONDS)

    def _audit(self) -> list[str]:
        if not self._audited:
            return []
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(POLICY))
        return [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}", "--audit-log-mode=blocking"]

    async def _start_controllers(self) -> None:
        self._controllers = self._process(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            "--secure-port=0",
            "--kube-api-qps=300",
            "--kube-api-burst=600",
            "--concurrent-job-syncs=20",
        )
        await self._controllers.start()
        await self._controllers.wait_until(self._pods_can_be_made, timeout=_READY_SECONDS)

    def _process(self, name: str, *arguments: str) -> ManagedProcess:
        return ManagedProcess(name, [str(self._binaries[name]), *arguments], log=self.folder / "logs" / f"{name}.log")

    async def _etcd_healthy(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=2.0)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://127.0.0.1:{self._etcd_port}/health") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _api_ready(self) -> bool:
        try:
            async with self.api() as api:
                return await api.text("/readyz") == "ok"
        except (ApiError, aiohttp.ClientError):
            return False

    async def _pods_can_be_made(self) -> bool:
        try:
            async with self.api() as api:
                await api.get("/api/v1/namespaces/default/serviceaccounts/default")
        except (ApiError, aiohttp.ClientError):
            return False
        return True

    def _write_tokens(self) -> None:
        self._tokens().touch(mode=0o600)
        with self._tokens().open("w", newline="") as file:
            csv.writer(file).writerow((self._token, "admin", "admin", "system:masters"))

    def _tokens(self) -> Path:
        return self.folder / "pki" / "tokens.csv"

    def _files(self) -> Certificates:
        if self._certificates is None:
            raise SandboxError("the control plane was not started yet")
        return self._certificates

    def _parts(self) -> Sequence[ManagedProcess]:
        return [part for part in (self._etcd, self._api_server, self._controllers) if part is not None]
