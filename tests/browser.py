"""A real browser for tests: Chromium without a window, one for the session.

The fixture reaches every test through `tests/conftest.py`; where there is no Chromium its tests skip and say so.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

__all__ = ["browser"]

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OFFLINE = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium."""
    found = os.environ.get("VAE_OPS_CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium: install Debian's package chromium, or name one in VAE_OPS_CHROMIUM")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(_OFFLINE))
        yield running
        running.close()
