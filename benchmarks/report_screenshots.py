"""A report in headless Chromium: pictures at two widths in both themes, what it loads, and whether it fits.

    pip install playwright                      # in an environment of its own; Chromium from the system's packages
    python benchmarks/report_screenshots.py report.html out --chromium /usr/bin/chromium

Ends with 1 where the page asks for anything over the network, says anything in the console, or is wider than the
screen.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

WIDTHS = (1280, 400)
THEMES = ("light", "dark")
HEIGHT = 900


def look(browser: Browser, page: Path, width: int, theme: str, out: Path) -> dict[str, object]:
    """Show the page as a reader sees it, with every table opened. What it asked for, said and how wide it is."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
    tab = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page.resolve().as_uri())
    tab.screenshot(path=out / f"{width}-{theme}.png", full_page=True)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    letters = tab.evaluate("Math.min(...[...document.images].map(one => one.clientWidth / one.getAttribute('width')))")
    context.close()
    loaded = [url for url in asked if not url.startswith(("data:", page.resolve().as_uri()))]
    return {
        "width": width,
        "theme": theme,
        "page_width": wide,
        "requests": loaded,
        "console": said,
        "smallest_scale_of_a_figure": letters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        seen = [look(browser, given.page, width, theme, given.out) for width in WIDTHS for theme in THEMES]
        browser.close()
    print(json.dumps(seen, indent=2))
    sys.exit(any(one["requests"] or one["console"] or one["page_width"] > one["width"] for one in seen))


if __name__ == "__main__":
    main()
