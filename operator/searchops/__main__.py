"""`searchops-operator`: one replica of the operator."""

from __future__ import annotations

import asyncio
import os
import sys

from pydantic import ValidationError

from searchops.settings import OperatorSettings
from searchops.wiring import run_operator


def main() -> None:
    """Read the settings, run, and end with a status that a Deployment restarts on."""
    try:
        settings = OperatorSettings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"SEARCHOPS_{name}: {problem['msg']}\n")
        sys.exit(2)
    status = asyncio.run(run_operator(settings))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
