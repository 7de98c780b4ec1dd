"""A Kubernetes cluster by its administrator's kubeconfig: the sandbox's own control plane, or a real one."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING, Final

import yaml

from searchops_sandbox.binaries import ensure_binaries
from searchops_sandbox.kubernetes_api import Connection, KubernetesApi
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_SECONDS: Final = 86_400
_COMMAND_SECONDS: Final = 180.0


class Cluster:
    """What tests and the sandbox do with any cluster.

    Args:
        kubeconfig: the administrator's.
        folder: where kubeconfigs of ServiceAccounts are written.
    """

    def __init__(self, kubeconfig: Path, *, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder

    @property
    def connection(self) -> Connection:
        """How the cluster's administrator connects."""
        return Connection.from_kubeconfig(self.kubeconfig)

    def api(self) -> KubernetesApi:
        """A client with the administrator's rights; use it with ``async with``."""
        return KubernetesApi(self.connection)

    async def service_account_kubeconfig(
        self, namespace: str, name: str, *, path: Path | None = None, seconds: int = TOKEN_SECONDS
    ) -> Path:
        """A kubeconfig with exactly the rights of a ServiceAccount, by TokenRequest; the account must exist.

        Raises:
            ApiError: where the account does not exist.
        """
        async with self.api() as api:
            answer = await api.create(
                f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {"expirationSeconds": seconds},
                },
            )
        admin = self.connection
        account = Connection(admin.server, authority=admin.authority, token=answer["status"]["token"])
        target = path or self.folder / f"{namespace}.{name}.kubeconfig"
        return await asyncio.to_thread(write_kubeconfig, target, account, user=name, namespace=namespace)

    async def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run kubectl as administrator; returns its standard output.

        Raises:
            SandboxError: with kubectl's own words, where it fails and `check` is set.
        """
        return await self._command("kubectl", arguments, stdin=stdin, check=check)

    async def helm(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run helm as administrator; returns its standard output.

        Raises:
            SandboxError: with helm's own words, where it fails and `check` is set.
        """
        return await self._command("helm", arguments, stdin=stdin, check=check)

    async def _command(self, name: str, arguments: tuple[str, ...], *, stdin: str, check: bool) -> str:
        program = (await asyncio.to_thread(ensure_binaries, (name,)))[name]
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), _COMMAND_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if check and process.returncode != 0:
            words = errors.decode(errors="replace")
            raise SandboxError(f"{name} {' '.join(arguments)} ended with {process.returncode}: {words}")
        return output.decode()


def write_kubeconfig(path: Path, connection: Connection, *, user: str, namespace: str = "default") -> Path:
    """A kubeconfig that logs in with the connection's bearer token; readable by its owner only."""
    cluster = {"server": connection.server}
    if connection.authority:
        cluster["certificate-authority-data"] = base64.b64encode(connection.authority.encode()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": connection.token}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": user, "namespace": namespace}}],
        "current-context": "sandbox",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
