"""A real browser without a window, in a namespace of the lab."""

from __future__ import annotations

import shutil
from types import TracebackType

from helpers.netns import Namespace
from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--no-proxy-server",
]


class Chromium:
    def __init__(self, place: Namespace) -> None:
        self._place = place

    def __enter__(self) -> Chromium:
        with self._place.entered():  # its process begins there, and what that starts
            self._playwright = sync_playwright().start()
            self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_ARGUMENTS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def person(self) -> BrowserContext:
        """Somebody else's browser each time: without a cookie. The portal's certificate is of the test's authority."""
        return self._browser.new_context(ignore_https_errors=True)


def open_page(person: BrowserContext, url: str) -> Page:
    page = person.new_page()
    page.goto(url)
    return page
