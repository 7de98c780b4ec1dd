"""The command ``searchops-sandbox``: build, up, status, down, and kubectl and helm on what runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer
from rich.console import Console
from rich.table import Table

from searchops_sandbox.binaries import DEMO, PROGRAMS, ensure_binaries
from searchops_sandbox.chromium import ensure_chromium
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.sandbox import Sandbox
from searchops_sandbox.triton_environment import cache_root, ensure_environment

Json = dict[str, Any]
_DOWN_SECONDS = 60.0
_PASSED_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
_errors = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
StateFile = Annotated[
    Path | None, typer.Option("--state", help="File with the addresses of what runs.", show_default="cache folder")
]


@app.command()
def build(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what only tests need: Argo CD and a browser.")
    ] = False,
) -> None:
    """Build the control plane's programs and the Triton environment into the cache folder."""
    for path in ensure_binaries(tuple(PROGRAMS) if everything else DEMO).values():
        typer.echo(path)
    typer.echo(ensure_environment().root)
    if everything:
        typer.echo(ensure_chromium())


@app.command()
def up(
    state: StateFile = None,
    folder: Annotated[Path | None, typer.Option(help="Keep data and logs here.", show_default="temporary")] = None,
    cells: Annotated[int, typer.Option(min=0, max=16, help="Qdrant cells.")] = 2,
    pools: Annotated[str, typer.Option(help="Names of the Triton pools, by comma.")] = "default,canary",
    servers: Annotated[int, typer.Option(min=1, max=8, help="Triton servers in each pool.")] = 1,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Worker processes at one time.")] = 2,
) -> None:
    """Start everything in the foreground and print how to use it; Ctrl-C or `down` stops it."""
    target = state or default_state()
    running = read_state(target)
    if running is not None and alive(running):
        fail(f"a sandbox already runs as process {running['pid']} (state {target}); `searchops-sandbox down` stops it")
    names = [name for name in pools.split(",") if name]
    asyncio.run(_serve(Sandbox(folder, cells=cells, pools=names, servers=servers, slots=slots), target))


@app.command()
def status(state: StateFile = None) -> None:
    """Show what runs and where; exit code 1 where nothing does or a part died."""
    target = state or default_state()
    found = _running(target)
    console = Console(highlight=False)
    table = Table("part", "process", "state")
    dead = 0
    for name, pid in found["parts"].items():
        there = psutil.pid_exists(pid)
        dead += not there
        table.add_row(name, str(pid), "runs" if there else "[red]died[/red]")
    console.print(table)
    for name, cell in found["cells"].items():
        kind = "double" if cell["double"] else "real"
        console.print(f"cell {name}: {cell['url']} gRPC {cell['grpcPort']} ({kind})", soft_wrap=True)
    for name, pool in found["pools"].items():
        console.print(f"pool {name}: {' '.join(pool['urls'])} repository {pool['repository']}", soft_wrap=True)
    console.print("\n".join(export_lines(found)), soft_wrap=True)
    if dead:
        raise typer.Exit(1)


@app.command()
def down(state: StateFile = None) -> None:
    """Stop what `up` started and wait until it is gone; nothing to stop is no error."""
    target = state or default_state()
    found = read_state(target)
    if found is None or not alive(found):
        target.unlink(missing_ok=True)
        _errors.print("sandbox: nothing runs")
        return
    process = psutil.Process(found["pid"])
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_DOWN_SECONDS)
    except psutil.TimeoutExpired:
        fail(f"process {process.pid} did not end within {_DOWN_SECONDS:g} s; its logs are in {found['folder']}")
    _errors.print("sandbox: stopped")


@app.command(context_settings=_PASSED_THROUGH, add_help_option=False)
def kubectl(context: typer.Context) -> None:
    """Run kubectl against what runs; arguments are passed on."""
    _become("kubectl", context.args)


@app.command(context_settings=_PASSED_THROUGH, add_help_option=False)
def helm(context: typer.Context) -> None:
    """Run helm against what runs; arguments are passed on."""
    _become("helm", context.args)


def default_state() -> Path:
    """Where `up` writes and the others look: ``SEARCHOPS_SANDBOX_STATE``, else a file in the cache folder."""
    override = os.environ.get("SEARCHOPS_SANDBOX_STATE")
    return Path(override) if override else cache_root() / "sandbox.json"


def read_state(path: Path) -> Json | None:
    """The state file's content; None where there is none.

    Raises:
        SandboxError: where it is not what `up` writes.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SandboxError(f"{path} is no state file of a sandbox: {error}; remove it") from error
    if not isinstance(found, dict) or not {"pid", "started", "kubeconfig", "parts"} <= set(found):
        raise SandboxError(f"{path} is no state file of a sandbox; remove it")
    return found


def alive(state: Json) -> bool:
    """Whether the process that wrote the state still runs: same id *and* same start, since ids come round again."""
    try:
        return bool(abs(psutil.Process(state["pid"]).create_time() - state["started"]) < 1.0)
    except psutil.Error:
        return False


def export_lines(state: Json) -> list[str]:
    """Shell lines that point kubectl, helm and the operator at the sandbox."""
    return [f"export KUBECONFIG={state['kubeconfig']}", f"export SEARCHOPS_ARTIFACTS={state['artifacts']}"]


def fail(message: str) -> NoReturn:
    """Ends with exit code 1 and an error line."""
    _errors.print(f"sandbox: {message}", style="red")
    raise typer.Exit(1)


def _running(path: Path) -> Json:
    found = read_state(path)
    if found is None or not alive(found):
        fail(f"nothing runs (state {path}); start it with `searchops-sandbox up`")
    return found


def _become(name: str, arguments: list[str]) -> NoReturn:
    environment = {**os.environ, "KUBECONFIG": str(_running(default_state())["kubeconfig"])}
    program = str(ensure_binaries((name,))[name])
    sys.stdout.flush()
    os.execve(program, [name, *arguments], environment)  # noqa: S606 - replaces this process, no shell


async def _serve(sandbox: Sandbox, target: Path) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    starting = asyncio.create_task(sandbox.start())
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            state = json.loads((await asyncio.to_thread(sandbox.write_state, target)).read_text())
            _errors.print(f"sandbox: ready; data and logs in {sandbox.folder}; Ctrl-C stops it")
            typer.echo("\n".join(export_lines(state)))
            sys.stdout.flush()
            await told.wait()
    finally:
        starting.cancel()
        waiting.cancel()
        await asyncio.gather(starting, waiting, return_exceptions=True)
        await sandbox.close()
        await asyncio.to_thread(target.unlink, missing_ok=True)


def main() -> None:
    """Entry point."""
    try:
        app()
    except SandboxError as error:
        _errors.print(f"sandbox: {error}", style="red", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
