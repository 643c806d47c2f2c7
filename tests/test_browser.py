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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from autograder import sandbox
from autograder.digit_files import digits
from autograder.notebook import source
from tests import classroom
from tests.classroom import nbgrader
from tests.system import missing

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # SQLAlchemy's, of nbgrader's own queries
    pytest.mark.xdist_group("course"),
]
ARTEFACTS = Path(os.environ.get("AUTOGRADER_ARTEFACTS", classroom.ROOT / "artefacts"))
SECONDS = 120  # until what is waited for counts as missing: many times what it takes
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


def wait(condition: Callable[[], T | None], absent: str) -> T:
    """What the condition gives once that is something; a page may change under its hands."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with suppress(StaleElementReferenceException):
            made = condition()
            if made is not None:
                return made
        time.sleep(0.05)
    raise AssertionError(absent)


class Browser:
    """Chromium without a window, and without a network but this machine's own."""

    def __init__(self, chromium: str, chromedriver: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.add_argument("--headless=new")
        options.add_argument("--window-size=1440,1100")
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

        return wait(found, f"no {selector} with the text {text!r} is shown")

    def told(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.driver.execute_script(f"return {expression}")

    def keep(self, name: str) -> None:
        """A screenshot of what is shown; by then, no script of a student may have run."""
        self.until("document.getAnimations().length === 0")
        self._shots += 1
        self.driver.save_screenshot(str(ARTEFACTS / f"{self._shots:02}-{name}.png"))
        assert self.told("top.alerts") == [], "a student's script has run"

    def press(self, selector: str, text: str = "") -> None:
        """Click what is shown."""
        self.shown(selector, text).click()

    def scroll_to(self, selector: str) -> None:
        """Have an element in the middle of the window."""
        script = "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})"
        self.driver.execute_script(script, selector)

    def until(self, expression: str) -> None:
        """Waits until an expression of JavaScript is true."""
        wait(lambda: self.told(expression) or None, f"{expression} stays false")

    def row(self, name: str, text: str = "") -> WebElement:
        """Waits for a row of formgrader's table that holds a name and a text."""

        def found() -> WebElement | None:
            rows = self.driver.find_elements(By.CSS_SELECTOR, "#main-table tr")
            return next((row for row in rows if name in row.text and text in row.text), None)

        return wait(found, f"no row of {name!r} has {text!r}")

    def press_in_row(self, name: str, selector: str) -> None:
        """Click one of the icons in a row of formgrader's table."""
        self.row(name).find_element(By.CSS_SELECTOR, selector).click()

    def show_names(self) -> None:
        """Have formgrader tell whose the submissions are."""
        self.row("Submission #1")
        self.press("#toggle_names")

    def confirm(self, message: str, name: str) -> None:
        """Waits for a dialogue that tells of success, keeps it, and closes it."""
        self.shown("#success-modal", message)
        self.keep(name)
        self.press("#success-modal button", "OK")
        self.until("jQuery('.modal, .modal-backdrop').length === 0")

    def pictures(self) -> list[str]:
        """The pictures that the page shows, in base64."""
        shown = "[...document.images].filter(i => i.complete && i.naturalWidth > 0 && i.width > 0)"
        return [str(told).partition("base64,")[2] for told in self.told(f"{shown}.map(i => i.src)")]


@pytest.fixture
def browser(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Debian's Chromium with its driver."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        missing("Chromium", "Debian: apt-get install chromium chromium-driver")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    made = Browser(chromium, chromedriver, tmp_path / "profile")
    try:
        yield made
    finally:
        made.driver.save_screenshot(str(ARTEFACTS / f"{request.node.name}.png"))
        made.driver.quit()


@contextmanager
def jupyter(folder: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab in a course folder; its URL and the token that it has drawn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own, log = folder.with_name("jupyter"), folder.with_name("jupyter.log")
    notices = own / "settings" / "@jupyterlab" / "apputils-extension"
    notices.mkdir(parents=True)
    (notices / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    places = {"JUPYTER_RUNTIME_DIR": own, "JUPYTERLAB_SETTINGS_DIR": own / "settings"}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    with log.open("w", encoding="utf-8") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env={**classroom.environment(folder), **{k: str(v) for k, v in places.items()}},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )

    def listening() -> tuple[str, str] | None:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        for info in own.glob("jpserver-*.json"):
            with suppress(ValueError):  # half written
                told = json.loads(info.read_text(encoding="utf-8"))
                return told["url"], told["token"]
        return None

    try:
        yield wait(listening, "Jupyter does not listen")
    finally:
        server.terminate()
        server.wait()


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
    drawing = ('show_losses({"auto-encoder"', 'show_reconstructions({"auto-encoder"')
    for cell in content["cells"]:
        for start, picture in zip(drawing, pictures, strict=True):
            if source(cell).startswith(start):
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
    put_plots(folder / "submitted" / EVIL / "vae" / "vae.ipynb", plots())
    names = [f"{student},Student,{student.title()}\n" for student in CLASS]
    (folder / "students.csv").write_text("id,last_name,first_name\n" + "".join(names))
    for command in (
        ("db", "student", "import", "students.csv"),
        ("generate_assignment", "vae"),
        ("autograde", "vae", f"--CourseDirectory.student_id_exclude={LATE}"),
    ):
        done = nbgrader(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_trap_catches_scripts(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(classroom.EVIL, encoding="utf-8")
    browser.open(page.as_uri())
    assert "1" in browser.told("top.alerts")


def test_a_person_grades_a_class_in_formgrader(class_of_six: Path, browser: Browser) -> None:
    folder, handed_in = class_of_six, plots()
    with jupyter(folder) as (url, token):
        browser.open(f"{url}lab?token={token}")
        browser.shown(".jp-DirListing-item", "submitted")
        browser.press(".lm-MenuBar-item", "Nbgrader")
        browser.keep("menu")
        browser.press(".lm-Menu-item", "Formgrader")
        browser.driver.switch_to.frame(browser.shown("iframe"))
        assert str(len(CLASS)) in browser.row("vae").text
        browser.driver.switch_to.default_content()
        browser.keep("formgrader")

        browser.open(f"{url}formgrader/manage_submissions/vae")
        assert "needs autograding" in browser.row(LATE).text
        browser.keep("submissions")
        browser.press_in_row(LATE, ".autograde a")
        browser.confirm(f"Successfully autograded 'vae' for student '{LATE}'", "autograded")
        browser.row(LATE, "31 / 45")

        browser.open(f"{url}formgrader/gradebook")
        browser.press("#main-table a", "vae")  # the assignment
        browser.shown(".breadcrumb .active", "vae")
        browser.press("#main-table a", "vae")  # its notebook
        browser.show_names()
        browser.row(EVIL.title(), "31 / 45")
        browser.keep("manual-grading")
        browser.press("#main-table a", EVIL.title())

        browser.shown(f"input#{ANSWER}.needs_manual_grade")
        browser.keep("submission")
        assert [picture for picture in browser.pictures() if picture in handed_in] == handed_in
        browser.scroll_to("img")
        browser.keep("plots")
        browser.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
        browser.keep("harmless")
        browser.scroll_to(f"input#{ANSWER}")
        browser.keep("answer")
        browser.shown(f"input#{ANSWER}").send_keys("2.5", Keys.TAB)
        browser.shown(f"#{ANSWER}-comment").send_keys(COMMENT, Keys.TAB)
        browser.shown(f"input#{ANSWER}:not(.needs_manual_grade)")
        browser.until("jQuery.active === 0")
        browser.keep("points-and-comment")
        browser.driver.refresh()
        browser.until(f"document.getElementById('{ANSWER}').value === '2.5'")
        browser.until("jQuery.active === 0")
        browser.until(
            f"document.getElementById('{ANSWER}-comment').value === {json.dumps(COMMENT)}"
        )

        browser.open(f"{url}formgrader/gradebook/vae/vae")
        browser.show_names()
        browser.row(EVIL.title(), "33.5 / 45")
        browser.keep("total")

        browser.open(f"{url}formgrader/manage_submissions/vae")
        for student in (EVIL, WRONG):
            browser.press_in_row(student, ".generate-feedback a")
            browser.confirm("Successfully generated feedback", f"feedback-for-{student}")

    browser.open((folder / "feedback" / EVIL / "vae" / "vae.html").as_uri())
    browser.shown(".panel-heading", "vae (Score: 33.5 / 45.0)")
    browser.keep("feedback")
    assert [picture for picture in browser.pictures() if picture in handed_in] == handed_in
    browser.scroll_to(f"a[name='{ANSWER}']")
    browser.shown(".nbgrader_cell", "Score: 2.5 / 3.0")
    browser.shown(".nbgrader_cell", "Well argued")
    browser.keep("feedback-on-an-answer")
    browser.open((folder / "feedback" / WRONG / "vae" / "vae.html").as_uri())
    browser.shown(".output_area", "encoder: 2 of 3 points (partial)")
    browser.shown(".output_area", "[kl-order]")
    browser.scroll_to("a[name='encoder']")
    browser.keep("feedback-on-a-mistake")
