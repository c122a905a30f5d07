"""The picture at the top of the README, taken of a report:

    .venv/bin/flashsale rehearse && .venv/bin/python docs/picture.py rehearsal.html docs/rehearsal.png

Needs Chromium, and what bin/bootstrap test installs.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

REPORT, PICTURE = map(Path, sys.argv[1:3])
SIZE = {"width": 1000, "height": 800}
LAST = "section:first-of-type"
"""where the picture ends"""
MARGIN = 15

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    page.goto(REPORT.absolute().as_uri())
    end = page.locator(LAST).bounding_box()
    size = {"width": SIZE["width"], "height": end["y"] + end["height"] + MARGIN}
    page.screenshot(path=PICTURE, full_page=True, clip={"x": 0, "y": 0, **size})
    browser.close()
