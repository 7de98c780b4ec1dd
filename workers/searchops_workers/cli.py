"""`searchops-worker`: every worker Job, the gateway, and the library's commands for people."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from searchops.api.tasks import (
    EXIT_BAD_TASK,
    TASK,
    TASK_VARIABLE,
    BackupTask,
    BuildTask,
    EvaluateTask,
    PinnedTask,
    ProveTask,
)

if TYPE_CHECKING:
    from searchops_workers.retrieval.commands import TextEncoder

OF_THE_LIBRARY = {"holdout": "holdout_app", "gate": "gate_app"}


class Commands(TyperGroup):
    """The library's commands are there when they are asked for, where what they need is installed.

    The gateway's image starts by this very program, and carries no statistics.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for the help."""
        return [*super().list_commands(ctx), *(OF_THE_LIBRARY if find_spec("scipy") else ())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name; None where there is none."""
        if cmd_name not in OF_THE_LIBRARY or not find_spec("scipy"):
            return super().get_command(ctx, cmd_name)
        commands = import_module("searchops_workers.holdout.commands")
        return typer.main.get_command(getattr(commands, OF_THE_LIBRARY[cmd_name]))


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=__doc__,
)


@app.command()
def run() -> None:
    """Run the task in SEARCHOPS_TASK: what a worker Job's container does."""
    text = os.environ.get(TASK_VARIABLE, "")
    try:
        task = TASK.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        typer.echo(
            f"{TASK_VARIABLE} is no task ({where}: {first['msg']}); wanted the JSON that the operator gives", err=True
        )
        raise typer.Exit(EXIT_BAD_TASK) from error
    if isinstance(task, BuildTask):
        from searchops_workers.engines.commands import run_build

        raise typer.Exit(run_build(text))
    if isinstance(task, EvaluateTask):
        from searchops_workers.holdout.evaluate import run_evaluate

        raise typer.Exit(run_evaluate(task))
    if isinstance(task, PinnedTask):
        from searchops_workers.holdout.pinned import run_pinned

        raise typer.Exit(run_pinned(task))
    if isinstance(task, BackupTask | ProveTask):
        from searchops_workers.backup.commands import run_backup

        raise typer.Exit(run_backup(task))
    from searchops_workers.reindex.worker import run_reindex

    raise typer.Exit(run_reindex(task))


@app.command()
def analyse(
    text: Annotated[str, typer.Argument(help="A query or a product text.")],
    lang: Annotated[str, typer.Option(help="Language of the text: en, de, fi, fr, es, it, nl, sv.")] = "en",
) -> None:
    """Print the tokens of a text as JSON, as a query is analysed."""
    from searchops_workers.retrieval.commands import analyse as analyse_text
    from searchops_workers.retrieval.stemming import SNOWBALL

    if lang not in SNOWBALL:
        typer.echo(f"--lang {lang!r} is not analysed; wanted one of {', '.join(SNOWBALL)}", err=True)
        raise typer.Exit(2)
    typer.echo(analyse_text(text, lang))


@app.command()
def retrieve(
    catalogue: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Products, one JSON object a line.")],
    queries: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Queries: objects with id and text.")],
    out: Annotated[Path, typer.Option(help="The TREC run file to write.")],
    profile: Annotated[str, typer.Option(help="A built-in retrieval profile.")] = "default",
    encoder: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A built encoder or a checkpoint; none: lexical.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, max=1000, help="Hits a query.")] = 50,
) -> None:
    """Retrieve offline over the embedded engine and write a TREC run file."""
    from searchops_workers.retrieval.commands import retrieve as retrieve_offline

    try:
        rows = retrieve_offline(catalogue, queries, profile, _encoder(encoder), out, depth)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{rows} rows in {out}")


def _encoder(folder: Path | None) -> TextEncoder | None:
    """An encoder from a folder: exported where it holds a model.onnx, else a sentence-transformers checkpoint."""
    if folder is None:
        return None
    if (folder / "model.onnx").exists():
        from searchops_workers.encoders.onnx_runtime import OnnxEncoder

        return OnnxEncoder.open(folder)
    if not (folder / "modules.json").exists():
        raise ValueError(
            f"--encoder {folder}: neither model.onnx nor modules.json is there; wanted an encoder's folder"
        )
    from searchops_workers.encoders.reference import ReferenceEncoder

    return ReferenceEncoder(folder)


@app.command()
def gateway() -> None:
    """Serve searches and indexing over HTTP; settings come from SEARCHOPS_GATEWAY_*."""
    from searchops_workers.gateway.commands import serve

    raise typer.Exit(serve())


def main() -> None:
    """Console entry."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
