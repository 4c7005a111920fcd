"""A Chromium without windows, spoken to in its DevTools protocol over a pair of pipes.

Nothing of it is shared with the launcher. `--remote-debugging-pipe`: the browser reads commands on
descriptor 3 and writes answers and events on 4, JSON with a NUL behind each.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

DEADLINE = 60.0
#: Nothing of these has a name that resolves, so a request that slipped through would fail.
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
#: Key → (code, Windows' virtual key, the text that it types).
KEYS = {
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "PageDown": ("PageDown", 34, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    " ": ("Space", 32, " "),
    "/": ("Slash", 191, "/"),
}


class Died(Exception):
    """The browser, or the page, did not do what was asked of it."""


class Chromium:
    """One browser process. `start` is the way to make it."""

    def __init__(self, pid: int, commands: int, answers: int) -> None:
        self.pid = pid
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are kept."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise Died(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event of this kind, of those that came and those that will."""
        for event in self.events:
            if wanted(event):
                return event
        while True:
            event = self._next()
            self.events.append(event)
            if wanted(event):
                return event

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + DEADLINE
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Died("Chromium does not answer")
            more = os.read(self._answers, 1 << 16)
            if not more:
                raise Died("Chromium has ended")
            self._rest += more
        one, _, self._rest = self._rest.partition(b"\0")
        return json.loads(one)

    def open(self, url: str, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        """A tab of this size with what is at `url`, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.go(url)
        return page

    def end(self) -> None:
        """End it, and with it every process of its group."""
        with contextlib.suppress(Died, OSError):
            self.call("Browser.close")
        os.close(self._commands)
        os.close(self._answers)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser = browser
        self.session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def go(self, url: str) -> None:
        """Load `url`, which is another one than is shown: a fragment alone loads nothing."""
        mark = len(self.browser.events)
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise Died(failed)
        events = self.browser.events
        self.browser.wait(lambda e: e["method"] == "Page.loadEventFired" and e not in events[:mark])

    def of(self, method: str) -> list[dict[str, Any]]:
        """What the events of this name said."""
        self.call("Runtime.evaluate", expression="0")  # all that came before it is here then
        return [
            event["params"]
            for event in self.browser.events
            if event["method"] == method and event.get("sessionId") == self.session
        ]

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        said = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise Died(json.dumps(said["exceptionDetails"]))
        return said["result"].get("value")

    def type(self, text: str) -> None:
        """Type as a person does, key by key."""
        for char in text:
            for kind in ("keyDown", "keyUp"):
                typed = {"text": char} if kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=char, **typed)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys that have names."""
        for key in keys:
            code, number, text = KEYS[key]
            common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            common["modifiers"] = 8 if shift else 0
            down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.call("Input.dispatchKeyEvent", **down, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """Click into the middle of the first element that fits."""
        place = self.ask(
            f"(() => {{ const at = document.querySelector({json.dumps(selector)});"
            "at.scrollIntoView({block: 'center'}); const box = at.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        spot = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **spot)

    def picture(self) -> bytes:
        """What the tab shows, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


def _apart(fd: int) -> int:
    """The same file at a number that is not in the way of 3 and 4."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


@contextlib.contextmanager
def start(program: str, folder: str) -> Iterator[Chromium]:
    """A browser that keeps its files in `folder`; ended with the block."""
    read_commands, commands = (_apart(fd) for fd in os.pipe())
    answers, write_answers = (_apart(fd) for fd in os.pipe())
    argv = [program, *FLAGS, f"--user-data-dir={folder}", "--log-level=3"]
    if os.getuid() == 0:
        argv.append("--no-sandbox")  # Chromium's own does not work for root
    errors = (os.path.join(folder, "stderr"), os.O_CREAT | os.O_WRONLY, 0o600)
    actions = [
        (os.POSIX_SPAWN_OPEN, 2, *errors),
        (os.POSIX_SPAWN_DUP2, read_commands, 3),
        (os.POSIX_SPAWN_DUP2, write_answers, 4),
    ]
    env = {**os.environ, "HOME": folder}
    pid = os.posix_spawn(program, argv, env, file_actions=actions, setpgroup=0)
    os.close(read_commands)
    os.close(write_answers)
    browser = Chromium(pid, commands, answers)
    try:
        yield browser
    finally:
        browser.end()
