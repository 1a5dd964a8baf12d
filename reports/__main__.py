"""Pages on the runs of a store, without Airflow: `python -m reports serve --store URI`.

The pages are served on this machine alone, to everybody who is logged in there.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from contract import deployment
from contract.errors import exit_code_of
from contract.store import Store

PORT = 8090


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    one = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="show runs in a browser")
    one.add_argument("--store", required=True, help="a folder or s3://BUCKET/FOLDER, as recipes name it")
    one.add_argument("--port", type=int, default=PORT)
    one.add_argument("--deployment", help="the file that says which stores and recipes may be read")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    return exit_code_of(lambda: serve(Store(given.store), given.port, given.deployment))


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
