"""A person grades in formgrader, in a real browser; screenshots of every step are kept.

They lie in artefacts/, or in the folder that AUTOGRADER_ARTEFACTS names.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from autograder import sandbox
from autograder.learning import digits
from autograder.notebook import source
from tests import classroom
from tests.classroom import nbgrader
from tests.system import need

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # SQLAlchemy's, of nbgrader's own queries
    pytest.mark.xdist_group("course"),
]
ARTEFACTS = Path(os.environ.get("AUTOGRADER_ARTEFACTS", classroom.ROOT / "artefacts"))
SECONDS = 90  # until what is waited for counts as missing: many times what it takes
CLASS = ("complete", "deleted", "evil", "real-student", "real-untouched", "missing")
EVIL, LATE, WRONG = "evil", "complete", "real-student"
ANSWER = "beta-zero-answer"
COMMENT = "Well argued, but what of the samples? $z \\sim N(0, I)$"
# What a student's script would do is noted, where the test finds it.
TRAP = """
top.alerts = top.alerts || [];
window.alert = window.confirm = window.prompt = text => { top.alerts.push(String(text)); };
"""
T = TypeVar("T")


class Browser:
    """Chromium without a window, and without a network but this machine's own."""

    def __init__(self, chromium: str, chromedriver: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.add_argument("--headless=new")
        options.add_argument("--window-size=1280,1100")
        options.add_argument("--disable-dev-shm-usage")
        options.add_argument("--disable-background-networking")
        options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        options.add_argument(f"--user-data-dir={profile}")
        if os.geteuid() == 0:  # whom chromium's own sandbox refuses
            options.add_argument("--no-sandbox")
        service = webdriver.ChromeService(executable_path=chromedriver)
        self.driver = webdriver.Chrome(options=options, service=service)
        trap = {"source": TRAP}
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", trap)
        self._shots = 0

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.driver.get(url)

    def shown(self, selector: str, text: str = "") -> WebElement:
        """Waits for an element that is shown and holds a text; selector: of CSS."""

        def found() -> WebElement | None:
            every = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((e for e in every if e.is_displayed() and text in e.text), None)

        return self.wait(found, f"no {selector} with the text {text!r} is shown")

    def told(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.driver.execute_script(f"return {expression}")

    def wait(self, condition: Callable[[], T | None], missing: str) -> T:
        """What the condition gives once that is something."""
        ignored = (StaleElementReferenceException,)
        return WebDriverWait(self.driver, SECONDS, 0.1, ignored).until(
            lambda _: condition() or False, missing
        )

    def keep(self, name: str) -> None:
        """A screenshot of what is shown; by then, no script of a student may have run."""
        self._shots += 1
        self.driver.save_screenshot(str(ARTEFACTS / f"{self._shots:02}-{name}.png"))
        assert self.told("top.alerts") == [], "a student's script has run"

    def press(self, selector: str, text: str = "") -> None:
        """Click what is shown."""
        self.shown(selector, text).click()

    def scroll_to(self, selector: str) -> None:
        """Have an element in the middle of the window."""
        element = self.shown(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

    def row(self, student: str) -> WebElement:
        """The row of a student in a table of formgrader."""
        return self.shown("#main-table tr", student)

    def pictures(self) -> list[str]:
        """The pictures that the page shows, in base64."""
        shown = "[...document.images].filter(i => i.complete && i.naturalWidth > 0 && i.width > 0)"
        return [str(told).partition("base64,")[2] for told in self.told(f"{shown}.map(i => i.src)")]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Debian's Chromium with its driver."""
    programs = ("chromium", "chromedriver")
    found = [path for path in map(shutil.which, programs) if path is not None]
    lack = "its programs are missing (Debian: apt-get install chromium chromium-driver)"
    need("Chromium", None if len(found) == len(programs) else lack)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    made = Browser(*found, profile=tmp_path / "profile")
    try:
        yield made
    finally:
        made.driver.save_screenshot(str(ARTEFACTS / "last.png"))
        made.driver.quit()


@contextmanager
def jupyter(folder: Path) -> Iterator[Callable[[str], str]]:
    """JupyterLab in a course folder; gives what makes a URL of a path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runtime = folder / "runtime"
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    with (folder / "jupyter.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env={**classroom.environment(folder), "JUPYTER_RUNTIME_DIR": str(runtime)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        at = WebDriverWait(server, SECONDS).until(lambda _: running(server, runtime), "no server")
        yield lambda path: f"{at['url']}{path}?token={at['token']}"
    finally:
        server.terminate()
        server.wait()


def running(server: subprocess.Popen[bytes], runtime: Path) -> dict[str, Any] | bool:
    """Where the server listens and the token that it has drawn, once it does."""
    assert server.poll() is None, (runtime.parent / "jupyter.log").read_text(encoding="utf-8")
    for file in runtime.glob("jpserver-*.json"):
        try:
            told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # half written
            return False
        return told
    return False


def plots() -> list[str]:
    """What a student's notebook shows: a curve of the loss and reconstructed digits, as PNG."""
    curve, table = Figure((5, 2.5)), Figure((5, 2.5))
    axes = curve.subplots()
    axes.plot([0.06, 0.031, 0.02, 0.014, 0.011, 0.009, 0.008])
    axes.set(xlabel="epoch", ylabel="rec_loss", title="auto-encoder")
    for place, image in zip(table.subplots(2, 6).flat, digits("t10k"), strict=False):
        place.imshow(image[0], cmap="gray_r")
        place.axis("off")
    made = []
    for figure in (curve, table):
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight")
        made.append(base64.b64encode(file.getvalue()).decode())
    return made


def put_plots(notebook: Path, pictures: list[str]) -> None:
    """Plots as the outputs of the cells that draw them; the code, and so its grade, stays."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    drawing = [c for c in content["cells"] if source(c).startswith(("show_losses", "show_recon"))]
    for cell, picture in zip(drawing, pictures, strict=False):
        data = {"image/png": picture, "text/plain": ["<Figure>"]}
        cell["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]
    notebook.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def class_of_six(course: Path, tmp_path: Path) -> Path:
    """Six students have handed in; five are graded, and the last is to be."""
    folder = tmp_path / "course"
    folder.mkdir()
    settings = f"\nc.Autograde.unboxed = {sandbox.missing() is not None}\n"
    classroom.part_of_class(course, folder, CLASS, settings)
    late = folder / "submitted" / LATE
    late.rename(folder / LATE)
    put_plots(folder / "submitted" / EVIL / "vae" / "vae.ipynb", plots())
    for step in ("generate_assignment", "autograde"):
        done = nbgrader(folder, step, "vae")
        assert done.returncode == 0, done.stderr
    (folder / LATE).rename(late)
    return folder


def test_the_trap_catches_scripts(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(classroom.EVIL, encoding="utf-8")
    browser.open(page.as_uri())
    assert "1" in browser.told("top.alerts")


def test_a_person_grades_a_class_in_formgrader(class_of_six: Path, browser: Browser) -> None:
    folder, handed_in = class_of_six, plots()
    with jupyter(folder) as url:
        browser.open(url("formgrader/manage_submissions/vae"))
        assert "needs autograding" in browser.row(LATE).text
        browser.keep("submissions")
        assert len(browser.driver.find_elements(By.CSS_SELECTOR, "#main-table tr")) == len(CLASS)
        browser.row(LATE).find_element(By.CSS_SELECTOR, ".autograde a").click()
        browser.shown("#success-modal", f"Successfully autograded 'vae' for student '{LATE}'")
        browser.keep("autograded")
        browser.press("#success-modal button", "OK")
        browser.wait(lambda: "31 / 45" in browser.row(LATE).text or None, "no score is shown")

        browser.open(url("formgrader/gradebook"))
        browser.press("#main-table a", "vae")
        browser.press("#main-table a", "vae")
        browser.press("#toggle_names")
        assert "31 / 45" in browser.row(EVIL).text
        browser.keep("manual-grading")
        browser.row(EVIL).find_element(By.LINK_TEXT, EVIL).click()

        browser.shown(f"input#{ANSWER}.score.needs_manual_grade")
        browser.keep("submission")
        assert [picture for picture in browser.pictures() if picture in handed_in] == handed_in
        browser.scroll_to("img")
        browser.keep("plots")
        browser.scroll_to(f"input#{ANSWER}")
        browser.keep("answer")
        browser.shown(f"input#{ANSWER}").send_keys("2.5", Keys.TAB)
        browser.shown(f"#{ANSWER}-comment").send_keys(COMMENT, Keys.TAB)
        browser.shown(f"input#{ANSWER}.score:not(.needs_manual_grade)")
        browser.wait(lambda: browser.told("jQuery.active === 0") or None, "nothing is saved")
        browser.keep("graded")
        browser.driver.refresh()
        browser.wait(
            lambda: browser.shown(f"input#{ANSWER}").get_attribute("value") == "2.5" or None,
            "the points are gone",
        )
        assert browser.shown(f"#{ANSWER}-comment").get_attribute("value") == COMMENT

        browser.press(".breadcrumb a", "vae")
        browser.open(url("formgrader/gradebook/vae/vae"))
        browser.press("#toggle_names")
        assert "33.5 / 45" in browser.row(EVIL).text
        browser.keep("total")

        browser.open(url("formgrader/manage_submissions/vae"))
        for student in (EVIL, WRONG):
            browser.row(student).find_element(By.CSS_SELECTOR, ".generate-feedback a").click()
            browser.shown("#success-modal", "Successfully generated feedback")
            browser.keep(f"feedback-made-{student}")
            browser.press("#success-modal button", "OK")
            browser.wait(lambda: not browser.told("jQuery('.modal').length") or None, "a dialogue")

    browser.open((folder / "feedback" / EVIL / "vae" / "vae.html").as_uri())
    browser.keep("feedback")
