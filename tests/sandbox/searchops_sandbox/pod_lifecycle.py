"""The life of one Pod on the sandbox's node: bind, resolve, wait for a slot, run, report, confirm its deletion."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp

from searchops_sandbox import pod_status
from searchops_sandbox.kubernetes_api import STRATEGIC, ApiError
from searchops_sandbox.pod_environment import ConfigError, SourceRef, command_line, resolve, sources
from searchops_sandbox.pod_status import TERMINAL, Ending
from searchops_sandbox.worker_process import PodFolder, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from searchops_sandbox.kubernetes_api import KubernetesApi
    from searchops_sandbox.node import Node
    from searchops_sandbox.reaper import GroupReaper

Json = dict[str, Any]
Result = TypeVar("Result")
WORKER: Final = "worker"
_RETRY_SECONDS: Final = 600.0
_CONFIG_SECONDS: Final = 0.5
_SHUTDOWN_SECONDS: Final = 2.0
logger = logging.getLogger(__name__)


class PodGoneError(Exception):
    """The Pod is no longer in the API server, or another one has its name."""


class PodDeletedError(Exception):
    """The Pod was asked to go before its worker ran."""


class PodRefusedError(Exception):
    """The sandbox does not serve what this Pod asks for."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PodLifecycle:
    """One Pod from the first sight of it to its end; `run` is called once, `observe` with every newer version."""

    def __init__(
        self,
        pod: Json,
        *,
        api: KubernetesApi,
        node: Node,
        slots: asyncio.Semaphore,
        folder: Path,
        reaper: GroupReaper,
    ) -> None:
        self.pod = pod
        self._api = api
        self._node = node
        self._slots = slots
        self._reaper = reaper
        self._folder = PodFolder(folder, pod)
        metadata = pod["metadata"]
        self.uid = str(metadata["uid"])
        self.name = f"{metadata['namespace']}/{metadata['name']}"
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._changed, self._deleted, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._over = self._confirmed = False
        self.observe(pod)

    def observe(self, pod: Json) -> None:
        """A newer version of the Pod."""
        self.pod = pod
        self._changed.set()
        if pod["metadata"].get("deletionTimestamp"):
            self._deleted.set()

    def vanish(self) -> None:
        """The Pod is gone from the API server: whatever still runs for it is killed."""
        self._gone.set()
        self._deleted.set()

    async def run(self) -> None:
        """Lives the Pod's life; returns when its phase is terminal."""
        try:
            if self._phase() == "Running":
                await self._write(pod_status.disrupted(self._worker_or_none(), _now()))
            elif self._phase() not in TERMINAL:
                await self._live()
            self._over = True
        except PodGoneError:
            logger.info("%s is gone", self.name)
            self._gone.set()

    @property
    def owes_confirmation(self) -> bool:
        """Whether nothing runs any more, deletion was asked for and the API server waits for the node's word."""
        return self._over and self._deleted.is_set() and not self._gone.is_set() and not self._confirmed

    async def confirm_deletion(self) -> None:
        """The node's word that nothing runs any more: only then does the API server let the object go."""
        self._confirmed = True
        with contextlib.suppress(PodGoneError):
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
            await self._persist(lambda: self._api.delete(self._path, options))

    async def _live(self) -> None:
        try:
            container = self._admit()
            await self._unless_deleted(self._bind())
            await self._unless_deleted(self._resolve(container))
            await self._unless_deleted(self._slots.acquire())
            try:
                environment, argv = await self._unless_deleted(self._resolve(container))
                await self._run_worker(container, environment, argv)
            finally:
                self._slots.release()
        except PodDeletedError:
            await self._write(pod_status.failed("Deleted", "the Pod was deleted before its worker ran", _now()))
        except PodRefusedError as refused:
            logger.warning("%s refused: %s", self.name, refused)
            await self._write(pod_status.failed(refused.reason, str(refused), _now()))

    def _admit(self) -> Json:
        spec = self.pod["spec"]
        container = self._worker_or_none()
        if container is None:
            names = ", ".join(item["name"] for item in spec["containers"])
            raise PodRefusedError("NoWorkerContainer", f"containers are {names}; the sandbox runs the one named worker")
        if spec.get("restartPolicy") != "Never":
            raise PodRefusedError(
                "RestartPolicyNotServed", f"restartPolicy is {spec.get('restartPolicy')}; the sandbox serves Never"
            )
        mounted = {mount["name"] for mount in container.get("volumeMounts") or ()}
        for volume in spec.get("volumes") or ():
            if volume["name"] in mounted and not volume["name"].startswith("kube-api-access-"):
                for kind in ("secret", "configMap", "projected", "downwardAPI", "csi"):
                    if kind in volume:
                        raise PodRefusedError(
                            "VolumeNotServed",
                            f"volume {volume['name']} is a {kind}; the sandbox serves paths of this machine only",
                        )
        if not container.get("command"):
            raise PodRefusedError("NoCommand", "container worker has no command; no image says what to run")
        return container

    async def _bind(self) -> None:
        """Waits until the node fits, then binds: an unbound Pod would be deleted at once, without grace."""
        if self.pod["spec"].get("nodeName"):
            return
        said = ""
        while obstacle := self._node.obstacle(self.pod):
            self._changed.clear()
            if obstacle != said:
                said = obstacle
                await self._write(pod_status.unschedulable(obstacle, _now()))
            await self._changed.wait()
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.pod["metadata"]["name"], "uid": self.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._node.name},
        }
        await self._persist(lambda: self._api.create(f"{self._path}/binding", binding), bound=True)

    async def _resolve(self, container: Json) -> tuple[dict[str, str], list[str]]:
        """Environment and command line; waits, saying so in the status, for Secrets and keys that are not there yet."""
        said = ""
        while True:
            try:
                found = {source: await self._read(source) for source in sources(container)}
                environment = resolve(self.pod, container, found, self._folder.base_environment())
                environment |= self._folder.own_environment()
                return environment, command_line(container, environment)
            except ConfigError as error:
                if str(error) != said:
                    said = str(error)
                    logger.info("%s waits: %s", self.name, said)
                    status = pod_status.waiting(container, "CreateContainerConfigError", said, _now())
                    await self._write(status)
            await asyncio.sleep(_CONFIG_SECONDS)

    async def _run_worker(self, container: Json, environment: dict[str, str], argv: list[str]) -> None:
        await asyncio.to_thread(self._folder.make)
        try:
            process = await WorkerProcess.start(
                argv,
                environment=environment,
                folder=self._folder,
                cwd=container.get("workingDir"),
                reaper=self._reaper,
            )
        except OSError as error:
            now = _now()
            await self._write(pod_status.ended(container, Ending(128, str(error), now, now, reason="StartError")))
            return
        logger.info("%s runs %s", self.name, argv[0])
        end = asyncio.create_task(process.wait(container))
        try:
            await self._write(pod_status.running(container, process.started))
            over_time = await self._until_ended_or_told(end)
            if not end.done():
                await self._terminate(process)
            ending = await end
        finally:
            await process.terminate(_SHUTDOWN_SECONDS)
            await asyncio.gather(end, return_exceptions=True)
        logger.info("%s ended with %d", self.name, ending.exit_code)
        await self._write(pod_status.ended(container, ending, deadline=over_time))

    async def _until_ended_or_told(self, end: asyncio.Task[Ending]) -> bool:
        """True where the Pod's own deadline passed first."""
        told = asyncio.create_task(self._deleted.wait())
        try:
            limit = self.pod["spec"].get("activeDeadlineSeconds")
            done, _ = await asyncio.wait({end, told}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            return not done
        finally:
            told.cancel()

    async def _terminate(self, process: WorkerProcess) -> None:
        """Grace as the deletion says; none any more once the Pod is gone by force."""
        if self._gone.is_set():
            await process.terminate(0)
            return
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30))
        ending = asyncio.create_task(process.terminate(float(grace)))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait({ending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                await process.terminate(0)
            await ending
        finally:
            gone.cancel()

    async def _read(self, source: SourceRef) -> Json | None:
        path = f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/{source.plural}/{source.name}"
        try:
            return await self._persist(lambda: self._api.get(path))
        except PodGoneError:
            return None

    async def _write(self, status: Json) -> None:
        """Patches the status of exactly this Pod: another one under the same name refuses the uid."""
        body = {"metadata": {"uid": self.uid}, "status": status}
        await self._persist(lambda: self._api.patch(f"{self._path}/status", body, kind=STRATEGIC))

    async def _persist(self, request: Callable[[], Awaitable[Json]], *, bound: bool = False) -> Json:
        """Repeats a request through outages of the API server, for ten minutes at most.

        Raises:
            PodGoneError: where the object is not there, or is another one (a uid does not match).
        """
        pause = 0.1
        deadline = asyncio.get_running_loop().time() + _RETRY_SECONDS
        while True:
            try:
                return await request()
            except ApiError as error:
                if error.status == 404:
                    raise PodGoneError(self.name) from error
                if error.status == 409 and not bound and "uid" in str(error).lower():
                    raise PodGoneError(self.name) from error
                if error.status == 409 and bound and self.pod["spec"].get("nodeName") == self._node.name:
                    return {}
                if error.status not in {401, 403, 409, 429} and error.status < 500:
                    raise
                problem: Exception = error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = error
            if asyncio.get_running_loop().time() > deadline:
                raise problem
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _unless_deleted(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, unless the Pod's deletion comes first.

        Raises:
            PodDeletedError: where it does; `work` is cancelled.
        """
        task, told = asyncio.create_task(work), asyncio.create_task(self._deleted.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise PodDeletedError(self.name)
        finally:
            task.cancel()
            told.cancel()
            await asyncio.gather(task, told, return_exceptions=True)

    def _phase(self) -> str:
        return str((self.pod.get("status") or {}).get("phase", "Pending"))

    def _worker_or_none(self) -> Json | None:
        found: list[Json] = [item for item in self.pod["spec"]["containers"] if item["name"] == WORKER]
        return found[0] if found else None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
