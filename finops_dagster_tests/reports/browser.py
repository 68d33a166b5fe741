"""A bill's page in Debian's Chromium, without a network."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from finops_dagster.reports.page import page_html

SMALL = Path(__file__).parent / "small_bill.json"


def small_bill() -> dict[str, Any]:
    """Return the small bill: six months, two clouds, two currencies."""
    bill: dict[str, Any] = json.loads(SMALL.read_text())
    return bill


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser; skip the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine (apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opener:
    """Opens bills, and keeps what the pages complain about or ask for."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser = browser
        self.folder = folder
        self.complaints: list[str] = []

    def __call__(
        self, bill: dict[str, Any], address: str = "", *, width: int = 1280, scheme: Any = "light"
    ) -> Page:
        """Return the drawn page of a bill at an address, which starts with "#"."""
        file = self.folder / "bill.html"
        file.write_text(page_html(bill), encoding="utf-8")
        viewport = {"width": width, "height": 900}
        context = self.browser.new_context(
            viewport=viewport,  # type: ignore[arg-type]
            color_scheme=scheme,
            offline=True,
        )
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._look_at(request.url))
        page.goto(file.as_uri() + address)
        page.wait_for_selector("html[data-ready]")
        return page

    def _look_at(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.complaints.append(f"a request to {url}")


def go(page: Page, address: str) -> None:
    """Change the page's address, and wait until it is drawn anew."""
    page.evaluate(
        """(address) => new Promise((done) => {
          if ((location.hash || "#") === address) return done();
          window.addEventListener("hashchange", () => setTimeout(done), { once: true });
          location.hash = address;
        })""",
        address,
    )


def wait_for_choice(page: Page, part: str) -> None:
    """Wait until the page is drawn for an address that has this part."""
    page.wait_for_function(
        """(part) => location.hash.includes(part) &&
          document.documentElement.dataset.address === location.hash""",
        arg=part,
    )


def rows(page: Page, caption: str) -> list[list[str]]:
    """Return the texts of the rows of the table whose caption starts so."""
    return page.evaluate(  # type: ignore[no-any-return]
        """(start) => {
          const table = [...document.querySelectorAll("table")].find(
            (table) => table.caption.textContent.startsWith(start));
          return [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) =>
            cell.textContent.trim()));
        }""",
        caption,
    )
