"""Make the picture in docs/report.md from a page.

$ finops --config config/demo.toml report --out report.html
$ python -m finops_dagster_tests.reports.picture report.html docs/report.png
"""

import sys
from pathlib import Path

from finops_dagster_tests.reports.browser import chromium

WIDTH, HEIGHT = 1280, 1130


def take(page_path: Path, picture_path: Path) -> None:
    """Write a picture of the top of a page."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(page_path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        page.wait_for_function("document.fonts.status === 'loaded'")
        page.screenshot(path=picture_path)


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:]))
