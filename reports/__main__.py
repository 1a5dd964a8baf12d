"""Pages on the runs of a store without Airflow, and the votes of a round for training:
`python -m reports serve | freeze`.

The pages are served on this machine alone, to everybody who is logged in there.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from contract import deployment, feedback
from contract.errors import RecipeError, exit_code_of
from contract.printable import printable
from contract.settings.feedback import Trust
from contract.store import Store
from reports import rating

PORT = 8090


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parsers = parser.add_subparsers(dest="command", required=True)
    one = parsers.add_parser("serve", help="show runs in a browser")
    one.add_argument("--store", required=True, help="a folder or s3://BUCKET/FOLDER, as recipes name it")
    one.add_argument("--port", type=int, default=PORT)
    one.add_argument("--deployment", help="the file that says which stores and recipes may be read")
    one = parsers.add_parser("freeze", help="write down which votes of a round count, and print that file's URI")
    one.add_argument("--store", required=True)
    one.add_argument("--round", required=True, help="its name: a folder in feedback/ of the store")
    for name, field in Trust.model_fields.items():
        one.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=field.default, help=f"by default {field.default:g}"
        )
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if given.command == "freeze":
        return exit_code_of(lambda: freeze(Store(given.store), given.round, vars(given)))
    return exit_code_of(lambda: serve(Store(given.store), given.port, given.deployment))


def freeze(store: Store, name: str, thresholds: Mapping[str, float]) -> None:
    """Freeze the votes of a round, and print whose are left out and where the file is."""
    try:
        trust = Trust(**{key: thresholds[key] for key in Trust.model_fields})
    except ValidationError as error:
        raise RecipeError(f"freeze: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None
    path, left_out = rating.freeze(store, feedback.read_round(store, name), trust)
    for annotator, why in left_out.items():
        print(printable(f"left out: {annotator}: {why}"))
    print(store.full(path))


def serve(store: Store, port: int, fixed: str | None) -> None:
    """Serve the pages until the process is interrupted."""
    import uvicorn

    from reports.cockpit.app import create
    from reports.cockpit.local import admit

    if fixed:
        os.environ[deployment.VARIABLE] = fixed
    deployment.current()  # a mistake in it is said now
    store.reach()
    app = create(admit(store))
    print(f"runs of {store.uri}: http://127.0.0.1:{port}/ (Ctrl-C ends it)", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    sys.exit(main())
