"""A Chromium without a network, one for the whole session; anything it asks for or complains of fails the test. And the
command line, run in an empty folder.

On CI (``CI`` is set) nothing may be missing, so a test that would be skipped fails there.
"""

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_attnviz import cli, language
from hf_attnviz.view import View

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_configure() -> None:
    """One thread for each process of the tests: tiny models gain nothing by more, and two processes fight over them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    for variable in ("LC_ALL", "LC_MESSAGES"):  # whoever runs the tests, they read English where they choose nothing
        os.environ.pop(variable, None)
    os.environ["LANG"] = "C.UTF-8"


@pytest.fixture(autouse=True)
def nothing_chosen() -> Iterator[None]:
    """No test leaves its language to the next."""
    yield
    language._chosen.clear()


def _skipped_on_ci_fails(report: Any) -> Any:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):  # to fail as expected is no skip
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{why} (on CI nothing may be missing)"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _skipped_on_ci_fails((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _skipped_on_ci_fails((yield))


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path: Path) -> Iterator[Callable]:
    """Opens a view or a text of HTML as a file, and waits until it is drawn."""
    contexts, complaints = [], []

    def open_it(content: View | str, *, wait: bool = True, **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US"} | options)
        contexts.append(context)
        context.set_offline(True)
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(content.html if isinstance(content, View) else content, encoding="utf-8")
        address = path.as_uri()

        def route(call):
            if call.request.url == address:
                call.continue_()
            else:
                complaints.append(f"request: {call.request.url[:100]}")
                call.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        if wait:
            page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not complaints, complaints


@pytest.fixture
def attnviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs a command in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LANG", "C.UTF-8")

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["attnviz", *words])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            language._chosen.clear()
        return 0

    return run
