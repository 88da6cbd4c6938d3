"""Headless browser that reaches no other machine."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

Box = tuple[float, float, float, float]
PROGRAMS = ("chromium", "chromedriver")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # required for root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1400,1000",
)


class Browser:
    """Debian's Chromium with a new profile.

    Args:
        folder: Folder of the profile.
    """

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        browser, driver = (shutil.which(name) for name in PROGRAMS)
        options.binary_location = str(browser)
        for option in (*_OPTIONS, f"--user-data-dir={folder}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.get("about:blank")

    def open(self, address: str) -> None:
        """Open a page, and clear the logs of earlier pages."""
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self._log(kind)
        self.driver.get(address)

    def find(self, selector: str, least: int = 1) -> list[WebElement]:
        """Wait for at least `least` elements on the open page, and return all."""

        def found() -> list[WebElement]:
            elements = self.driver.find_elements("css selector", selector)
            return elements if len(elements) >= least else []

        elements: list[WebElement] = self._wait(found, f"{least} of {selector}")
        return elements

    def read(self, *texts: str) -> None:
        """Wait for texts on the open page; runs of white space count as one space."""

        def found() -> bool:
            page = " ".join(self.driver.execute_script("return document.body.innerText").split())
            return all(text in page for text in texts)

        self._wait(found, " and ".join(texts))

    def boxes(self, selector: str) -> list[Box]:
        """Return left, top, right and bottom of elements, in pixels of the page."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect())"
        found = self.driver.execute_script(script, selector)
        return [(box["left"], box["top"], box["right"], box["bottom"]) for box in found]

    def _wait(self, condition: Callable[[], Any], what: str, limit_s: float = 120.0) -> Any:
        waiting = WebDriverWait(self.driver, limit_s, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition(), f"{self.driver.current_url} does not show {what}")

    def console_messages(self) -> list[str]:
        """Return the console messages of the open page."""
        return self._log("browser")

    def requests(self) -> list[str]:
        """Return the URLs that the open page has requested, without `data:` and `blob:`."""
        messages = [json.loads(entry)["message"] for entry in self._log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [url for each in sent if not (url := str(each["request"]["url"])).startswith(("data:", "blob:"))]

    def _log(self, kind: str) -> list[str]:
        """Return the log entries since the last call."""
        entries: list[dict[str, str]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]
