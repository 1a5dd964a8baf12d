"""`make demo` and `make stop`: from pages to a chat model on one machine, watched from the terminal.

start: find pages, start Airflow, run the recipe through the DAGs corpus, pretrain, align, evaluate, and show results.
stop: end everything that start left running.
"""

import argparse
import contextlib
import datetime
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import Timeout

from contract import recipe as recipes
from contract.errors import GristmillError
from contract.metrics import clock
from contract.private import private_lock
from contract.recipe import Recipe
from demo import preflight, server, source, summary
from demo.follow import CHAIN, Follower, Screen
from demo.rest import Airflow
from gristmill_airflow.environment import create_pools, password, token

DISK_GIB = 2.0
PARSE_S = 120
WHERE = Path("home")  # and the Makefile's
NAME = "demo__"  # start of the ids of the demo's runs of `corpus`, by which a later demo recognises them


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=("start", "stop"))
    parser.add_argument("--where", type=Path, default=WHERE, help="folder for Airflow, the pydoc crawl and the lock")
    parser.add_argument("--recipe", default="recipes/tiny.yaml")
    parser.add_argument("--crawl", help="folder or store prefix with WARC or WET files")
    parser.add_argument("--set", default="", help="overrides, separated by spaces: 'ppo.steps=40 filter.min_words=30'")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args(arguments)
    try:
        if given.command == "stop":
            _stop(given.where)
        else:
            with _alone(given.where):
                _start(given, Screen())
    except GristmillError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        hint = (
            "; make room or give access there, or choose another folder: make demo WHERE=DIR" if error.filename else ""
        )
        print(f"\nerror: {error}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nThe run goes on inside Airflow. `make demo` follows it again; `{_how_to_stop(given.where)}` ends it.",
            file=sys.stderr,
        )
        return 130
    return 0


def _stop(where: Path) -> None:
    count = server.stop(where)
    elsewhere = f"nothing was running in {where}; a demo in another folder ends with: make stop WHERE=DIR"
    print(f"stopped {count} processes" if count else elsewhere)


def _how_to_stop(where: Path) -> str:
    """The command that ends the demo of a folder."""
    return "make stop" if where == WHERE else f"make stop WHERE={shlex.quote(str(where))}"


def _start(given: argparse.Namespace, screen: Screen) -> None:
    began = time.monotonic()
    problem = preflight.java_problem() or preflight.disk_problem(given.where, DISK_GIB)
    if problem:
        raise GristmillError(problem)
    running = server.find(given.where)
    if not running:
        server.check_port(given.port)
    elif running.port != given.port:
        screen.say(f"Airflow is up on port {running.port} already and stays there; {_how_to_stop(given.where)} ends it")
    overrides = _overrides(given)
    screen.say("Gristmill: from crawled pages to a chat model\n")
    pages = source.choose(given.where, given.recipe, given.crawl, overrides, screen)
    screen.say(f"  {'pages':<10} {pages.description}")
    screen.say(f"  {'recipe':<10} {' '.join((given.recipe, *given.set.split()))}")
    form = _form_default(given.where, given.recipe, (*pages.overrides, *overrides))
    screen.say(f"  {'form':<10} {_form_line(form, server.recipe_in_force(running, form))}")
    if not running:
        screen.show(f"  {'Airflow':<10} starting ...")
    up = running or server.start(given.where, given.port, form)
    screen.say(f"  {'Airflow':<10} {up.url}  (log in as admin, password {password(up.home)})")

    airflow = Airflow(up.url, lambda: token(up.home, up.port), lambda: server.find(given.where) == up)
    create_pools(up.home, up.port)
    _prepare(airflow, screen)
    conf = {
        "recipe": str(Path(given.recipe).resolve()) if "://" not in given.recipe else given.recipe,
        "overrides": [*pages.overrides, *overrides],
    }
    run_id = airflow.trigger(
        "corpus", conf, pages.snapshot, f"{NAME}{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H-%M-%S}"
    )
    run = Follower(airflow, screen).follow_chain(run_id, pages.snapshot)
    again = summary.skipped(run)
    tasks = sum(map(len, summary.finished(run).values()))
    screen.say(f"\n{run.uri}\n")
    screen.say(summary.render(run))
    if again:
        screen.say(f"\n{again} of {tasks} tasks were done before with these settings and inputs, and were skipped.")
    took = clock(time.monotonic() - began)
    screen.say(f"\nDone in {took}. Airflow stays up at {up.url}; end it with: {_how_to_stop(given.where)}")


def _overrides(given: argparse.Namespace) -> tuple[str, ...]:
    """The command line's overrides, and the store in the demo's folder unless recipe or overrides name another."""
    overrides = tuple(given.set.split())
    recipe = recipes.load(given.recipe, overrides)
    default = recipe.store == Recipe().store
    return (*overrides, f"store={given.where.resolve() / 'store'}") if default else overrides


def _form_default(where: Path, recipe: str, overrides: Sequence[str]) -> Path:
    """Write the demo's recipe to a file, from which the form, polls and backfills get the same pages by default."""
    file = where / "demo.yaml"
    draft = file.with_suffix(".new")
    draft.write_text(recipes.dump(recipes.load(recipe, overrides)))
    draft.replace(file)  # atomically, because a task of a running Airflow may read it now
    return file


def _form_line(form: Path, in_force: str) -> str:
    """The line on the trigger forms' default recipe."""
    if in_force == str(form.resolve()):
        return f"{form}, this recipe with these pages, is the default of Airflow's trigger forms"
    return (
        f"the default of Airflow's trigger forms is {in_force}, as GRISTMILL_RECIPE says; "
        f"this recipe with these pages is {form}"
    )


def _prepare(airflow: Airflow, screen: Screen) -> None:
    """Wait until the DAGs are parsed, end the unfinished runs of an interrupted demo, and unpause the DAGs."""
    deadline = time.monotonic() + PARSE_S
    while missing := set(CHAIN) - airflow.dags():
        errors = airflow.import_errors()
        if errors or time.monotonic() > deadline:
            raise GristmillError(
                f"Airflow does not offer the DAGs {', '.join(sorted(missing))}: "
                f"{'; '.join(errors) or 'no reason given'}"
            )
        time.sleep(1)
    for dag in CHAIN:
        ended = airflow.end_unfinished(dag, NAME)
        if ended:
            screen.say(
                f"  {'':<10} ended {ended} run{'s' if ended > 1 else ''} of {dag} that an earlier demo left unfinished"
            )
        airflow.pause(dag, False)


@contextlib.contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Hold the folder's lock; raise GristmillError if another demo holds it. It is freed when the process ends."""
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (owner := where.stat().st_uid) != os.getuid():
        raise GristmillError(f"{where} belongs to user {owner}; choose a folder of your own: make demo WHERE=DIR")
    note = where / "demo.lock"
    try:
        lock = private_lock(note, timeout=0).acquire()
    except Timeout:
        other = note.read_text().strip() or "?"
        raise GristmillError(
            f"another `make demo` (process {other}) runs in {where}; "
            "wait for it, or use a folder and port of your own: make demo WHERE=DIR PORT=8090"
        ) from None
    with lock:
        note.write_text(f"{os.getpid()}\n")
        yield


if __name__ == "__main__":
    sys.exit(main())
