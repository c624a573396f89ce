"""A real browser for tests of pages: what it complains of, and an accessibility checker in it."""

import shutil
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def shown(browser: Any, address: str, origin: str = "file:", **options: Any) -> tuple[Any, list[str]]:
    """A page in a tab of its own, and its complaints: errors, dialogs, requests to any other origin."""
    context = browser.new_context(**options)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append("a script ran"), dialog.dismiss()))
    tab.on("request", lambda request: _note(complaints, request.url, origin))
    tab.goto(address)
    return tab, complaints


def violations(tab: Any) -> list[tuple[str, str]]:
    """What axe-core finds wrong, and where first; contrast is among what it looked at."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response
    assert any(rule["id"] == "color-contrast" for rule in found["passes"])
    return [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found["violations"]]


def _note(complaints: list[str], url: str, origin: str) -> None:
    if not url.startswith((origin, "data:")):
        complaints.append(f"asked for {url}")
