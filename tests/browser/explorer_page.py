"""The explorer in a browser, as the tests see it: its controls, its pictures' data, its clipboard."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from playwright.sync_api import Page

PATIENCE = 30.0  # seconds, on a machine with much else to do
DRAWN = "() => Number(document.documentElement.dataset.drawings ?? 0)"


@dataclass
class Explorer:
    """One page, with what it asked for and what it complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))

    def open(self, address: str) -> None:
        self.page.goto("about:blank")  # a change of the fragment alone would not load the page anew
        self.page.goto(address)
        self.wait(lambda: self.drawings() > 0)

    def drawings(self) -> int:
        """How often the page has drawn its pictures."""
        return self.page.evaluate(DRAWN)

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"{PATIENCE:.0f} s went by; the page complained: {self.complaints}"
            time.sleep(0.02)

    def after(self, action: Callable[[], object]) -> None:
        """Act, and wait for the pictures to follow."""
        before = self.drawings()
        action()
        self.wait(lambda: self.drawings() > before)

    def choose(self, control: str, value: str) -> None:
        self.after(lambda: self.page.select_option(f"#{control}", value))

    def press(self, control: str, key: str) -> None:
        self.page.focus(f"#{control}")
        self.after(lambda: self.page.keyboard.press(key))

    def follow(self, fragment: str) -> None:
        """Change the address's fragment, as a reader does who pastes a link; the same one again is not a change."""
        assert self.fragment() != fragment
        self.after(lambda: self.page.evaluate("fragment => { location.hash = fragment; }", fragment))

    def fragment(self) -> str:
        """The address's fragment, once it has caught up with the view."""
        self.wait(lambda: self.page.evaluate("() => location.hash === writeFragment(current)"))
        return self.page.evaluate("location.hash")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def curve(self, picture: str, name: str) -> dict[str, list]:
        """Give x, y and texts of the line of that name, of all its traces, as plotly.js holds them."""
        script = """([id, name]) => document.getElementById(id).data
            .filter((trace) => trace.name === name || trace.name === `${name}, apart`)
            .map(({ x, y, text }) => ({ x: [...x], y: [...y].map((one) => one ?? NaN), text: [...(text ?? [])] }))"""
        traces = self.page.evaluate(script, [picture, name])
        return {key: [one for trace in traces for one in trace[key]] for key in ("x", "y", "text")}

    def heat(self) -> list[list[float | None]]:
        return self.page.evaluate("() => document.getElementById('heatmap').data[0].z")

    def frames(self, picture: str) -> list[dict]:
        return self.page.evaluate("id => document.getElementById(id).layout.shapes", picture)

    def hover(self, picture: str, name: str, point: int) -> str:
        """Move the mouse to a point of a line, and return what the picture says of it."""
        script = """([id, name, point]) => {
            const div = document.getElementById(id), { xaxis, yaxis, yaxis2 } = div._fullLayout;
            const trace = div.data.find((one) => one.name === name);
            const y = trace.yaxis === "y2" ? yaxis2 : yaxis;
            const box = div.querySelector(".nsewdrag").getBoundingClientRect();
            return [box.left + xaxis.d2p(trace.x[point]), box.top + y.d2p(trace.y[point])]; }"""
        self.page.locator(f"#{picture}").scroll_into_view_if_needed()
        x, y = self.page.evaluate(script, [picture, name, point])
        label = self.page.locator(f"#{picture} .hoverlayer .hovertext")
        self.page.mouse.move(1, 1)
        self.wait(lambda: label.count() == 0)
        self.page.mouse.move(x - 1, y - 1)
        self.page.mouse.move(x, y)
        label.first.wait_for(timeout=1000 * PATIENCE)
        return label.first.text_content() or ""

    def copied(self, button: str) -> str:
        self.page.click(f"#{button}")
        self.wait(lambda: "Copied" in self.text("#status"))
        self.page.evaluate("() => put('status')")
        return self.page.evaluate("() => navigator.clipboard.readText()")

    def copied_table(self, picture: str) -> pd.DataFrame:
        text = self.copied(f"copy-{picture}")
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values={c: [""] for c in NUMBERS})


NUMBERS = ("value", "ci_low", "ci_high")
