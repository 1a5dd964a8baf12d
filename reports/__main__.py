"""Pages on the runs of a store without Airflow, a blind comparison of models, and the votes of a round for training:
`python -m reports serve | compare | freeze`.

The pages are served on this machine alone, to everybody who is logged in there.
"""

import argparse
import datetime
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from contract import deployment, feedback
from contract.errors import RecipeError, exit_code_of
from contract.plan import open_run
from contract.printable import printable
from contract.settings.feedback import Trust
from contract.store import Store
from reports import rating, rounds

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
    comparing = parsers.add_parser("compare", help="open a round in which people compare the models of `sample`")
    comparing.add_argument("--recipe", required=True, help="the URI of a run whose `sample` is done")
    for name, field in Trust.model_fields.items():
        one.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=field.default, help=f"by default {field.default:g}"
        )
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if given.command == "compare":
        return exit_code_of(lambda: compare(given.recipe))
    if given.command == "freeze":
        return exit_code_of(lambda: freeze(Store(given.store), given.round, vars(given)))
    return exit_code_of(lambda: serve(Store(given.store), given.port, given.deployment))


def compare(uri: str) -> None:
    """Open a round whose votes tell which of the models of the run's `sample` is better, and print its state.

    Nothing is learned from it. A round that is there stays, so the command also says how far it is.
    """
    from reports.cockpit.local import DAG

    run = open_run(uri)
    made = rounds.open_round(run, "", datetime.datetime.now(datetime.UTC), "comparison")
    print(f"{made.name}: {rounds.votes(run.store, made.name)}")
    served = shlex.join(["python", "-m", "reports", "serve", "--store", run.store.uri])
    print("people vote on the page Rate, and its page Models compared has the result:")
    print(f"without Airflow: {served}, then http://127.0.0.1:{PORT}/rate/{DAG}/{made.run}")
    print("in Airflow: the tab Rate of a DAG run of this recipe; Airflow has none of a run that was resolved by hand")


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
