"""The cockpit in Chromium: how long until a page's charts are drawn, and whether a text of a page ever runs or leads elsewhere."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, TimeoutError, sync_playwright

from perf.cockpit.payloads import ELSEWHERE

CHROMIUM = "/usr/bin/chromium"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LIMIT_MS = 30_000
DRAWN = """() => {
  const seen = (one) => one.getBoundingClientRect().top < innerHeight && one.getBoundingClientRect().bottom > 0;
  return document.readyState === "complete"
    && [...document.querySelectorAll(".chart")].every((one) => one.hidden || !seen(one) || one.querySelector(".main-svg"))
    && [...document.querySelectorAll("[data-points]")].every((one) => one.querySelector(".main-svg"));
}"""
"""Every chart in view stands; the page of a training task draws the others when a reader comes to them."""
SCROLLED = """async () => {
  for (const one of document.querySelectorAll(".chart")) {
    one.scrollIntoView();
    for (let turn = 0; turn < 2; turn++) await new Promise(requestAnimationFrame);
  }
}"""
PLANTED = """() => {
  const elsewhere = (address) => {
    try { return new URL(address, document.baseURI).hostname.endsWith("evil.invalid"); } catch { return false; }
  };
  return [...document.querySelectorAll("*")].flatMap((one) => {
    const found = [...one.attributes].filter((a) => /^on/i.test(a.name)
      || (/^(href|src|action|data|xlink:href|srcdoc)$/i.test(a.name) && /^\\s*(j\\s*a\\s*v\\s*a\\s*s|data:text)/i.test(a.value))
      || (/^(href|src|action)$/i.test(a.name) && elsewhere(a.value))).map((a) => `${one.tagName} ${a.name}`);
    if (["IFRAME", "OBJECT", "EMBED", "BASE", "MARQUEE", "AUDIO", "VIDEO"].includes(one.tagName)) found.push(one.tagName);
    if (one.tagName === "SCRIPT" && !one.src) found.push("SCRIPT");
    return found;
  });
}"""
"""What no page of ours has: handlers in attributes, inline scripts, frames, addresses that are code or lead elsewhere."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. Its own sandbox does not work inside a container."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def signed_in(browser: Browser, url: str, token: str, **options: Any) -> BrowserContext:
    """A profile of its own, with a user's session at `url`."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.add_cookies([{"name": "_token", "value": token, "url": url}])
    context.set_default_timeout(LIMIT_MS)
    return context


def drawn_s(page: Page, address: str) -> float:
    """Seconds from asking for a page until all of its charts are drawn."""
    began = time.monotonic()
    answer = page.goto(address, wait_until="commit")
    if answer is None or not answer.ok:
        raise RuntimeError(f"{address}: {answer.status if answer else 'no answer'}")
    page.wait_for_function(DRAWN, polling="raf")
    return time.monotonic() - began


@dataclass
class Watch:
    """Notes what the texts of pages do in a browser. fired: numbers of the payloads that ran or asked for something."""

    context: BrowserContext
    fired: set[int] = field(default_factory=set)
    planted: list[str] = field(default_factory=list)
    """Elements and attributes that only a text can have put into a page, each with the page's address."""
    refused: list[str] = field(default_factory=list)
    """Pages that answered with an error of the server, or whose charts were not drawn."""

    def __post_init__(self) -> None:
        self.context.expose_binding("pwned", lambda _, number=-1: self.fired.add(int(number)))
        self.context.on("dialog", self._spoke)
        self.context.on("request", lambda request: self._asked(request.url))

    def _spoke(self, dialog: Dialog) -> None:
        self.fired.add(-1)
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        if ELSEWHERE in url.partition("?")[0]:
            name = url.partition("?")[0].rstrip("/").rpartition("/")[2].partition(".")[0]
            self.fired.add(int(name) if name.isdecimal() else -1)

    def visit(self, addresses: Iterable[str]) -> int:
        """Load each page and touch what is on it. Returns how many pages were looked at."""
        page, count = self.context.new_page(), 0
        for address in addresses:
            count += 1
            answer = page.goto(address, wait_until="load")
            if answer is None or answer.status >= 500:
                self.refused.append(f"{address}: {answer.status if answer else 'no answer'}")
            self.look(page, address)
        page.close()
        return count

    def look(self, page: Page, address: str) -> None:
        """Wait for the charts, come to each of them, then move over the page and focus its fields, which runs handlers that wait for it."""
        try:
            page.wait_for_function(DRAWN, polling="raf", timeout=LIMIT_MS)
        except TimeoutError:
            self.refused.append(f"{address}: its charts are not drawn after {LIMIT_MS // 1000} s")
        page.evaluate(SCROLLED)
        self.planted += [f"{address}: {one}" for one in page.evaluate(PLANTED)]
        page.mouse.move(200, 200)
        page.mouse.move(600, 400)
        page.evaluate("() => document.querySelectorAll('input, select, summary').forEach((one) => one.focus())")

    def injections(self) -> int:
        return len(self.fired) + len(self.planted)
