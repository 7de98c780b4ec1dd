"""The sandbox's kubelet: runs the ``worker`` container's command of each Pod as a plain process of this machine.

It binds Pods, resolves their environment, reports status, exit code and termination message, and honours deletion,
grace and deadlines. It runs as a process of its own (``python -m searchops_sandbox.process_runner``), so that a busy
test cannot starve it; worker processes die with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from searchops_sandbox.kubernetes_api import ApiError, Connection, KubernetesApi
from searchops_sandbox.node import Node
from searchops_sandbox.pod_lifecycle import PodLifecycle
from searchops_sandbox.processes import ManagedProcess
from searchops_sandbox.reaper import GroupReaper

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

Json = dict[str, Any]
READY_FILE: Final = "ready"
_PODS_PATH: Final = "/api/v1/pods"
_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
logger = logging.getLogger(__name__)


class ProcessRunner:
    """Watches the Pods of every namespace and gives each a life of its own.

    Args:
        api: an open client that may bind Pods and write their status.
        folder: Pod folders and the ready file.
        node: the Node it stands for.
        slots: how many workers run at once; further Pods stay Pending.
    """

    def __init__(self, api: KubernetesApi, *, folder: Path, node: Node, slots: int) -> None:
        self._api = api
        self._folder = folder
        self._node = node
        self._slots = asyncio.Semaphore(slots)
        self._reaper = GroupReaper()
        self._pods: dict[str, PodLifecycle] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Runs until cancelled; then ends the workers, whose Pods a later run reports as disrupted."""
        await self._reaper.start()
        await self._node.register(self._api)
        heart = asyncio.create_task(self._node.beat(self._api))
        try:
            await self._follow()
        finally:
            heart.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(heart, *self._tasks.values(), return_exceptions=True)
            await self._reaper.close()

    async def _follow(self) -> None:
        pause = 0.1
        while True:
            try:
                listing = await self._api.get(_PODS_PATH)
                self._relist(listing["items"])
                self._mark_ready()
                version = listing["metadata"]["resourceVersion"]
                pause = 0.1
                while True:
                    async for kind, pod in self._api.watch(_PODS_PATH, version):
                        version = pod["metadata"]["resourceVersion"]
                        self._take_in(kind, pod)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                logger.warning("the watch broke, listing again: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _mark_ready(self) -> None:
        (self._folder / READY_FILE).touch()

    def _relist(self, pods: list[Json]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._pods) - there:
            self._forget(uid)
        for pod in pods:
            self._take_in("MODIFIED", pod)

    def _take_in(self, kind: str, pod: Json) -> None:
        if kind == "BOOKMARK" or pod["spec"].get("nodeName", self._node.name) != self._node.name:
            return
        uid = str(pod["metadata"]["uid"])
        if kind == "DELETED":
            self._forget(uid)
            return
        known = self._pods.get(uid)
        if known is None:
            known = self._pods[uid] = PodLifecycle(
                pod, api=self._api, node=self._node, slots=self._slots, folder=self._folder, reaper=self._reaper
            )
            self._begin(uid, known.run())
            return
        known.observe(pod)
        self._settle(uid)

    def _settle(self, uid: str) -> None:
        known = self._pods.get(uid)
        if known is not None and known.owes_confirmation and uid not in self._tasks:
            self._begin(uid, known.confirm_deletion())

    def _forget(self, uid: str) -> None:
        if lifecycle := self._pods.pop(uid, None):
            lifecycle.vanish()

    def _begin(self, uid: str, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(life, name=uid)
        self._tasks[uid] = task
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        uid = task.get_name()
        self._tasks.pop(uid, None)
        if task.cancelled():
            return
        if error := task.exception():
            name = self._pods[uid].name if uid in self._pods else uid
            logger.error("%s: the runner gave up on this Pod", name, exc_info=error)
        self._settle(uid)


class RunnerProcess:
    """The process runner as a process of its own, in the sandbox's hands.

    Args:
        kubeconfig: an administrator's.
        folder: Pod folders, log and ready file; a runner started again on the same folder finds its Pods.
        slots: how many workers run at once.
        node: the Node it stands for.
    """

    def __init__(self, kubeconfig: Path, *, folder: Path, slots: int = 2, node: Node | None = None) -> None:
        node = node or Node()
        self.name = "process-runner"
        self.folder = folder
        argv = [sys.executable, "-m", "searchops_sandbox.process_runner", "--kubeconfig", str(kubeconfig)]
        argv += ["--folder", str(folder), "--slots", str(slots), "--node", node.name]
        argv += [f"--label={key}={value}" for key, value in node.labels.items()]
        argv += [f"--resource={key}={value}" for key, value in node.resources.items()]
        self._process = ManagedProcess(self.name, argv, log=folder / "runner.log")

    @property
    def pid(self) -> int | None:
        """Process id, or None before the start."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process.running

    async def start(self) -> None:
        """Start it and wait until it has seen every Pod.

        Raises:
            SandboxError: with the end of its log.
        """
        (self.folder / READY_FILE).unlink(missing_ok=True)
        await self._process.start()
        await self._process.wait_until(self._ready, timeout=_READY_SECONDS)

    async def stop(self) -> None:
        """SIGTERM: workers get two seconds; their Pods are reported as disrupted by the next start."""
        await self._process.stop(grace=_STOP_SECONDS)

    async def kill(self) -> None:
        """SIGKILL, as of a node that fails; its workers die with it."""
        await self._process.kill()

    def tail(self, lines: int = 40) -> str:
        """The end of the runner's log."""
        return self._process.tail(lines)

    async def _ready(self) -> bool:
        return (self.folder / READY_FILE).exists()


async def serve(connection: Connection, *, folder: Path, node: Node, slots: int) -> None:
    """Runs until SIGTERM or SIGINT."""
    async with KubernetesApi(connection) as api:
        runner = asyncio.create_task(ProcessRunner(api, folder=folder, node=node, slots=slots).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runner.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await runner


def main() -> None:
    """Entry point of the runner's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--node", default="sandbox")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resource", action="append", default=[], metavar="NAME=COUNT")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    node = Node(
        arguments.node,
        labels=_pairs(arguments.label),
        resources={name: int(count) for name, count in _pairs(arguments.resource).items()},
    )
    connection = Connection.from_kubeconfig(arguments.kubeconfig)
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(connection, folder=folder, node=node, slots=arguments.slots))


def _pairs(items: list[str]) -> Mapping[str, str]:
    return dict(item.split("=", 1) for item in items)


if __name__ == "__main__":
    main()
