"""Twenty HTTP clients and two browsers vote at once while the store fails and answers get lost: is every vote kept once?

Clients send forms twice, in two tabs with different answers, and again after a time-out that cut the answer off. A vote
is lost if the page said that it was kept and the store does not have this answer. It is doubled if an item counts for a
person more often than it was shown.
"""

import contextlib
import html
import random
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import numpy as np
import uvicorn
from fastapi import Request
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page

from contract import assignment, feedback
from contract.assignment import people_of
from contract.errors import StoreError
from contract.feedback import Ballots, Round, Vote
from contract.plan import Run
from contract.recipe import Recipe
from contract.store import Store
from perf.bars import Bars
from perf.cockpit.browser import chromium
from perf.feedback.simulated import World, make_items, open_round
from reports.cockpit.app import create
from reports.cockpit.desk import Desk
from reports.cockpit.local import DAG, Local
from reports.cockpit.visitor import Refused

CLIENTS, BROWSERS = 20, 2
ITEMS, PEOPLE = 60, 5
FAILS_BEFORE, FAILS_AFTER = 0.1, 0.1  # of creations: nothing was written, or the answer got lost
GIVEN_UP = 0.1  # of the forms: the client does not wait for the answer
LIMIT_S = 240.0
PATH = f"/rate/{DAG}/bench"
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


class Visitor(Local):
    """One person of a round, who is known by a cookie."""

    def __init__(self, store: Store, name: str, run: Run) -> None:
        super().__init__(store)
        self.name, self._run = name, run

    def run(self, dag_id: str, run_id: str) -> Run:
        return self._run

    def record(self, event: str, dag_id: str, run_id: str, what: object) -> None:
        """Nothing: the log of a bench would have thousands of lines."""


@contextlib.contextmanager
def served(store: Store) -> Iterator[str]:
    """The cockpit over a store, for whoever the cookie `user` names. Yields its address."""
    recipe = Recipe.model_validate({"name": "bench", "store": store.uri})
    run = Run(store.full("runs/bench/recipe.yaml"), recipe, ())

    async def admit(request: Request) -> Visitor:
        if not (name := request.cookies.get("user", "")):
            raise Refused(401, "Log in.")
        return Visitor(store, name, run)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = create(admit, Desk(threads=8))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@contextlib.contextmanager
def failing(seed: int) -> Iterator[Counter[str]]:
    """Within it, some files of rounds are not created, and of some that are the caller does not hear."""
    create, drawn, lock, told = Store.create, random.Random(seed), threading.Lock(), Counter[str]()

    def unsure(self: Store, path: str, data: bytes) -> bool:
        with lock:
            lot = drawn.random()
        if lot < FAILS_BEFORE:
            told["refused"] += 1
            raise StoreError(f"{path}: the store timed out before it wrote")
        made = create(self, path, data)
        if lot < FAILS_BEFORE + FAILS_AFTER:
            told["answer lost"] += 1
            raise StoreError(f"{path}: the store timed out after it wrote")
        return made

    Store.create = unsure  # type: ignore[method-assign]
    try:
        yield told
    finally:
        Store.create = create  # type: ignore[method-assign]


@dataclass
class Ledger:
    """What the pages said to people. kept: (name of the vote, the form's ranks by place) of votes that were kept."""

    kept: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    taken_back: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, name: str, ranks: tuple[int, ...]) -> None:
        with self.lock:
            self.kept.append((name, ranks))
            self.counts["kept"] += 1

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


@dataclass
class Client:
    """A person with a script in place of a browser."""

    url: str
    name: str
    ledger: Ledger
    deadline: float

    def rate(self) -> None:
        """Vote until nothing is left."""
        drawn = random.Random(self.name)
        headers = {"cookie": f"user={self.name}", "origin": self.url, "accept": "text/html"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=30) as http:
            while time.monotonic() < self.deadline:
                page = self._ask(http, "GET", PATH)
                if page.status_code == 503:
                    continue
                if 'id="rate"' not in page.text:
                    if "0 left for you" in page.text and "All items have their votes" in page.text:
                        return
                    time.sleep(0.2)  # others hold what is left
                    continue
                form = dict(HIDDEN.findall(page.text.split('id="rate"')[1]))
                self._vote(http, form, page.text.count('class="reply"'), drawn)

    def _ask(self, http: httpx.Client, method: str, path: str, form: dict[str, str] | None = None) -> httpx.Response:
        """The answer to a request; 503 if the connection was lost."""
        try:
            return http.request(method, path, data=form)
        except httpx.TransportError:
            self.ledger.count("connection lost")
            return httpx.Response(503)

    def _vote(self, http: httpx.Client, form: dict[str, str], replies: int, drawn: random.Random) -> None:
        """Send a form as impatient people do, until an answer says what became of it."""
        ranks = [tuple(drawn.randint(1, replies) for _ in range(replies)) for _ in range(2)]
        habit = drawn.random()
        if habit < GIVEN_UP:
            self.ledger.count("given up")
            with contextlib.suppress(httpx.HTTPError):
                http.post(f"{PATH}/vote", data=_filled(form, ranks[0]), timeout=0.002)
        if habit > 0.8:  # two tabs at once, half of them with the same answer
            self.ledger.count("two tabs")
            both = [ranks[0], ranks[0] if habit > 0.9 else ranks[1]]
            with ThreadPoolExecutor(2) as tabs:
                list(tabs.map(lambda one: self._send(http, form, one), both))
        else:
            name = self._send(http, form, ranks[0])
            if habit < 0.2:  # the back button, and the same form or another answer
                self.ledger.count("back button")
                self._send(http, form, ranks[drawn.randint(0, 1)])
            elif name and habit < 0.25:
                self._take_back(http, form["round"], name)

    def _send(self, http: httpx.Client, form: dict[str, str], ranks: tuple[int, ...]) -> str:
        """Send one answer again and again until it is kept or refused. Returns the vote's name, or nothing."""
        while time.monotonic() < self.deadline:
            answer = self._ask(http, "POST", f"{PATH}/vote", _filled(form, ranks))
            if answer.status_code == 303:
                name = httpx.URL(answer.headers["location"]).params["kept"]
                self.ledger.keep(name, ranks)
                return name
            if answer.status_code != 503:
                self.ledger.count(f"answer {answer.status_code}")
                return ""
            self.ledger.count("sent again")
        return ""

    def _take_back(self, http: httpx.Client, made: str, name: str) -> None:
        while time.monotonic() < self.deadline:
            if self._ask(http, "POST", f"{PATH}/take_back", {"round": made, "vote": name}).status_code == 303:
                with self.ledger.lock:
                    self.ledger.taken_back.add(name)
                self.ledger.count("taken back")
                return


def _filled(form: dict[str, str], ranks: tuple[int, ...]) -> dict[str, str]:
    return {html.unescape(key): html.unescape(value) for key, value in form.items()} | {
        f"rank_{place}": str(rank) for place, rank in enumerate(ranks)
    }


def browse(url: str, name: str, ledger: Ledger, deadline: float) -> None:
    """A person at a real browser who votes by keyboard, presses Enter twice, goes back, and loads pages again."""
    drawn = random.Random(name)
    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies([{"name": "user", "value": name, "url": url}])
        page = context.new_page()
        while time.monotonic() < deadline:
            with contextlib.suppress(BrowserError):
                page.goto(f"{url}{PATH}")
                if not page.locator("#rate").count():
                    if "All items have their votes" in page.content():
                        return
                    time.sleep(0.3)
                    continue
                _by_keyboard(page, drawn, ledger)


def _by_keyboard(page: Page, drawn: random.Random, ledger: Ledger) -> None:
    cards = page.locator(".reply").count()
    ranks = tuple(drawn.randint(1, cards) for _ in range(cards))
    for letter, rank in zip("abcd", ranks, strict=False):
        page.keyboard.press(letter)
        page.keyboard.press(str(rank))
    twice = drawn.random() < 0.3
    _enter(page, 1 + twice)
    for _ in range(20):
        if "kept=" in page.url or not page.locator("[role=alert]").count():
            break
        _enter(page)  # the store failed, and the form came back filled in
    if "kept=" not in page.url:
        return
    ledger.keep(httpx.URL(page.url).params["kept"], ranks)
    ledger.count("by browser")
    if drawn.random() < 0.3:
        page.go_back()
        if page.locator("#rate").count():
            ledger.count("back in the browser")
            _enter(page)


def _enter(page: Page, times: int = 1) -> None:
    """Press Enter, and wait for the page that follows."""
    page.evaluate("window.before = true")
    for _ in range(times):
        page.keyboard.press("Enter")
    page.wait_for_function("() => !window.before && document.readyState === 'complete'")


def run(bars: Bars) -> None:
    generator = np.random.default_rng(0)
    items = make_items(generator, World.drawn(generator), ITEMS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        made = open_round(store, items, "kept", people=PEOPLE, repeated=0.1, repeat_after=2, hold_minutes=0.25)
        ledger = Ledger()
        with served(store) as url, failing(0) as faults:
            everybody(url, ledger)
        found = feedback.ballots(store, made)
    told = ", ".join(f"{what} {count:,}" for what, count in (*sorted(ledger.counts.items()), *sorted(faults.items())))
    print(f"  {len(found.votes):,} votes; {told}")
    done = people_of(found.counting)
    bars.exactly("votes_lost", len(lost(ledger, found)), 0)
    bars.exactly("votes_doubled", len(doubled(made, found)), 0)
    bars.exactly("items_unrated", sum(done[item.id] < PEOPLE for item in items), 0)
    bars.at_least("store_faults", faults.total(), 100)
    bars.at_least("browser_votes", ledger.counts["by browser"], 10)


def everybody(url: str, ledger: Ledger) -> None:
    """All clients and browsers at once, until nothing is left or the time is over."""
    deadline = time.monotonic() + LIMIT_S
    clients = [Client(url, f"client {number}", ledger, deadline) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS + BROWSERS) as pool:
        waiting = [pool.submit(browse, url, f"browser {number}", ledger, deadline) for number in range(BROWSERS)]
        while ledger.counts["by browser"] < BROWSERS and time.monotonic() < deadline:
            time.sleep(0.1)  # browsers take longer to start than clients
        waiting += [pool.submit(client.rate) for client in clients]
        for one in waiting:
            one.result()


def lost(ledger: Ledger, found: Ballots) -> list[str]:
    """Votes of which a page said that they are kept, or taken back, and of which the store says otherwise."""
    stored = {vote.name: vote for vote in found.votes}
    gone = [name for name, ranks in ledger.kept if name not in stored or answer(stored[name]) != dense(ranks)]
    return gone + sorted(ledger.taken_back - found.taken_back.keys())


def answer(vote: Vote) -> tuple[int, ...]:
    """The ranks by the places of the page."""
    return tuple(vote.ranks[reply] for reply in vote.shown)


def dense(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Ranks without gaps."""
    return tuple(sorted(set(ranks)).index(rank) + 1 for rank in ranks)


def doubled(made: Round, found: Ballots) -> list[tuple[str, str]]:
    """(Item, person) whose votes count more often than the page asks for: once, or twice where an item is repeated."""
    times = Counter((vote.item, vote.annotator) for vote in found.counting)
    seed, share = made.rating.seed, made.rating.repeated
    return [key for key, count in times.items() if count > 1 + (assignment.drawn("again", seed, *key) < share)]
