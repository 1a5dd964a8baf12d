"""The parts of the bench: what each measures of a running cockpit, and the bars that it must reach."""

import statistics
from collections import Counter
from itertools import chain
from urllib.parse import quote

from contract.documents import parts_of, read_documents
from contract.feedback import key_of
from contract.manifest import find
from contract.plan import open_run
from demo.server import is_free
from perf.bars import Bars
from perf.cockpit import guarded, walked
from perf.cockpit.addresses import Addresses
from perf.cockpit.browser import Watch, chromium, drawn_s, signed_in
from perf.cockpit.load import USERS, Loaded, press
from perf.cockpit.payloads import PAYLOADS
from perf.cockpit.rated import items, name_of
from perf.cockpit.served import HOSTILE, LARGE, Served, with_rights
from perf.cockpit.store import Made

FIRST_BYTE_S, DRAWN_S, GROWTH_MB, CLICKS = 1.0, 2.0, 50.0, 2
REQUESTS, WARM, RUSHED = 1000, 100, 500
READ_S = 5.0
PAGES = ("funnel", "pages", "training", "models", "rate")
DRAWN_PAGES = {
    "funnel": f"/run/corpus/{LARGE}", "pages": f"/pages/corpus/{LARGE}", "training": f"/training/pretrain/{LARGE}/pretrain",
    "models": "/models", "rate": f"/rate/align/{LARGE}", "quality": f"/rate/align/{LARGE}/quality",
}  # fmt: skip
TURNS = 5
FIRST = items(1)[0].id
FORMS = {
    f"/pages/corpus/{LARGE}/verdicts": {"document": "0" * 32, "comment": "x"},
    "/new/check/corpus": {"recipe": "tiny"}, "/new/plan/corpus": {"recipe": "tiny"}, "/new/start/corpus": {"recipe": "tiny"},
    f"/rate/corpus/{LARGE}/vote": {
        "round": name_of(LARGE), "item": FIRST, "showing": "0", "rank_0": "1", "rank_1": "2", "rank_2": "3",
    },
    f"/rate/corpus/{LARGE}/take_back": {
        "round": name_of(LARGE), "vote": f"{FIRST}-{key_of('person-0')}-0.json",
    },
}  # fmt: skip
"""What each write takes, so that only rights can refuse it."""


def load(bars: Bars, up: Served, made: Made) -> None:
    """Fifty users at once: the first byte of every page, and how much the API server grows by a thousand requests.

    The bars are those of users who read a page for READ_S seconds in the mean. What users get who do not read, so that
    fifty requests are under way at every moment, is printed beside them.
    """
    addresses = Addresses(made.run, up.runs)
    tokens = [up.token()] * USERS
    press(up.cockpit, tokens, addresses.choose, WARM)
    before = up.memory_mb()
    loaded = press(up.cockpit, tokens, addresses.choose, REQUESTS, READ_S)
    grown = up.memory_mb() - before
    print(f"{USERS} users who read a page for {READ_S:g} s:")
    say(loaded)
    for page in PAGES:
        bars.at_most(f"page_p95_s_{page}", loaded.p95_s(page), FIRST_BYTE_S)
    bars.at_most("api_server_growth_mb", grown, GROWTH_MB)
    bars.exactly("failed_requests", len(loaded.failures()), 0)
    print(f"{USERS} users who do not read, {RUSHED} requests:")
    rushed = press(up.cockpit, tokens, addresses.choose, RUSHED)
    say(rushed)
    print("  95 of 100 below: " + ", ".join(f"{page} {rushed.p95_s(page):.2f} s" for page in PAGES))


def say(loaded: Loaded) -> None:
    """What the bars do not tell: how the times spread, what failed, and what the driver took."""
    rate = len(loaded.answers) / loaded.seconds
    print(f"{len(loaded.answers)} requests, {rate:.1f} a second; the driver took {loaded.driver_cores:.2f} of a core")
    kinds: dict[str, list[float]] = {}
    for one in loaded.answers:
        shape = "/".join(part for part in one.address.partition("?")[0].split("/")[:2])
        kinds.setdefault(f"{one.page} {shape}", []).append(one.first_byte_s)
    for name, times in sorted(kinds.items()):
        print(
            f"  {name:<24} {len(times):>5} requests, median {statistics.median(times):.2f} s, most {max(times):.2f} s"
        )
    for (status, address), count in Counter((one.status, one.address) for one in loaded.failures()).most_common(5):
        print(f"  {count} x {status} {address}")


def drawn(bars: Bars, up: Served, made: Made) -> None:
    """From asking for a page until its charts stand, in a browser that has nothing of it yet; then in one that has."""
    with chromium() as browser:
        for name, address in DRAWN_PAGES.items():
            context = signed_in(browser, up.url, up.token())
            page = context.new_page()
            times = [drawn_s(page, up.cockpit + address) for _ in range(TURNS)]
            context.close()
            print(f"  {name}: first {times[0]:.2f} s, then {statistics.median(times[1:]):.2f} s")
            bars.at_most(f"drawn_s_{name}", max(times), DRAWN_S)


def rights(bars: Bars, up: Served, made: Made) -> None:
    """Every route, asked by those who may not have its answer."""
    port = next(one for one in range(19900, 20000) if is_free(one))
    with with_rights(up, port) as second:
        asked, wrong = guarded.unauthorised(second, FORMS)
    print(f"  {asked} requests to {len(guarded.routes())} routes")
    for line in wrong:
        print(f"  {line}")
    bars.exactly("unauthorised_answers", len(wrong), 0)


def injections(bars: Bars, up: Served, made: Made) -> None:
    """Fifty hostile texts in everything that a page shows, with the content security policy and without it."""
    addresses = hostile_addresses(made)
    fired: set[int] = set()
    found = 0
    with chromium() as browser:
        for policy in (True, False):
            context = signed_in(browser, up.url, up.token(), bypass_csp=not policy)
            watch = Watch(context)
            count = watch.visit(up.cockpit + address for address in addresses)
            context.close()
            fired |= watch.fired
            found += watch.injections()
            said = "with" if policy else "without"
            print(
                f"  {count} pages {said} the policy: payloads {sorted(watch.fired)} ran, {len(watch.planted)} elements"
            )
            for line in chain(watch.planted[:5], watch.refused[:5]):
                print(f"  {line[:300]}")
    bars.exactly("script_injections", found, 0)


def hostile_addresses(made: Made) -> list[str]:
    """The pages on which the hostile run is shown, and those that repeat what an address says."""
    run = open_run(made.hostile)
    score = find(run.store, run.task("score", run.segments[0].partition))
    assert score is not None
    rows = read_documents(run.store, parts_of(score)[0], ["id", "url"])
    ids = {one["url"]: one["id"] for one, _ in zip(rows, range(len(PAYLOADS)), strict=False)}
    shown = [
        f"/run/corpus/{HOSTILE}", f"/run/corpus/{HOSTILE}?other=corpus/{LARGE}", f"/run/corpus/{LARGE}",
        f"/pages/corpus/{HOSTILE}", f"/pages/corpus/{HOSTILE}?reason=kept", f"/pages/corpus/{HOSTILE}?words=pwned",
        f"/pages/corpus/{HOSTILE}?stage=dedup_fuzzy", f"/pages/corpus/{HOSTILE}/thresholds",
        f"/pages/corpus/{HOSTILE}/verdicts", f"/training/pretrain/{HOSTILE}/pretrain", f"/training/align/{HOSTILE}/reward",
        f"/training/align/{HOSTILE}/gate", f"/training/align/{HOSTILE}/ppo", "/models", f"/models/evaluate/{HOSTILE}",
        f"/models/pretrain/{HOSTILE}/pretrain", f"/models/corpus/{HOSTILE}/crawl",
        f"/models/beside?model=align/{HOSTILE}/sft&model=align/{HOSTILE}/ppo",
        f"/rate/align/{HOSTILE}", f"/rate/align/{HOSTILE}/votes", f"/rate/align/{HOSTILE}/quality",
        f"/rate/align/{HOSTILE}/strengths",
        f"/new?from_dag=corpus&from_run={HOSTILE}", f"/manifest/pretrain/{HOSTILE}/pretrain", f"/manifest/corpus/{HOSTILE}/filter/0",
    ]  # fmt: skip
    shown += [f"/pages/corpus/{HOSTILE}/document/{one}" for one in ids.values()]
    for payload in map(quote, PAYLOADS):
        shown.append(f"/pages/corpus/{HOSTILE}?address={payload}&words={payload[:90]}&reason={payload[:90]}")
        shown.append(f"/new?overrides={payload}&crawl={payload[:90]}&recipe={payload}")
        shown.append(f"/rate/align/{HOSTILE}?round={payload}&kept={payload}")
    return shown


def clicks(bars: Bars, up: Served, made: Made) -> None:
    """Six questions of a person, walked from Airflow's home page."""
    walked.fail(up)
    for name, count in walked.clicks(up).items():
        bars.at_most(f"clicks_{name}", count, CLICKS)
