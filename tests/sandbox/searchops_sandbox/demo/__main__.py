"""`make demo`: the main job once, on real parts; the last line of standard output is one JSON object."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from searchops_sandbox.demo.kept_engines import ENGINES, kept_engines
from searchops_sandbox.demo.platform import Platform
from searchops_sandbox.demo.story import Story
from searchops_sandbox.demo.table import LiveTable
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.sandbox import Sandbox


async def main() -> int:
    """Run the story; with KEEP=1 leave everything running and say how to look around."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    keep = os.environ.get("KEEP") == "1"
    folder = os.environ.get("SEARCHOPS_SANDBOX_FOLDER")
    platform = Platform(Sandbox(Path(folder) if folder else None))
    with LiveTable() as table:
        table.say("▶ the sandbox starts: control plane, two Qdrant cells, two Triton pools")
        table.say(
            f"  {kept_engines()} engines of the last two weeks are in {ENGINES}: what has their key is not built anew"
        )
        async with platform:
            story = Story(platform, say=table.say, show=table.show)
            try:
                outcome = await story.tell()
            except SandboxError as error:
                sys.stderr.write(f"the story did not hold: {error}\n")
                sys.stdout.write(json.dumps(asdict(story.outcome)) + "\n")
                return 1
            if keep:
                sys.stderr.write(_look_around(platform))
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, stop.set)
                await stop.wait()
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    return 0


def _look_around(platform: Platform) -> str:
    return (
        f"\nLook around (Ctrl-C ends it):\n  export KUBECONFIG={platform.sandbox.kubeconfig}\n"
        "  searchops-sandbox kubectl get searchtenants,embeddingmodels,reindexjobs -A\n"
        "  searchops-sandbox kubectl describe embeddingmodel shop-encoder\n"
        "  TOKEN=$(searchops-sandbox kubectl -n merchants-eu get secret fasteners-en-storefront -o "
        "jsonpath='{.data.token}' | base64 -d)\n"
        f"  curl -s {platform.gateway_url}/v1/tenants/merchants-eu.fasteners-en/search "
        '-H "Authorization: Bearer $TOKEN" -d \'{"query": "m12 ss nut"}\'\n'
    )


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
