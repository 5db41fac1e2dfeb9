"""The live page in a real browser: chromium, driven by its own driver in the words of the WebDriver standard."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.replay import Upstream

if sys.platform == "win32":
    pytest.skip("the proxy does not run on Windows", allow_module_level=True)

from penstock._native import Gateway

MASTER = "sk-master-of-this-test"
CLIENT = "sk-client-of-this-test"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: the name under which an element is told
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--hide-scrollbars",
]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Browser:
    """As much of WebDriver as these tests need."""

    def __init__(self, driver: str, profile: Path) -> None:
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.client = httpx.Client(timeout=60, trust_env=False)
        self.session = f"{driver}/session"
        self.session += "/" + self.send("POST", "", capabilities={"alwaysMatch": wanted})["sessionId"]

    def send(self, method: str, path: str, **said: Any) -> Any:
        response = self.client.request(method, self.session + path, json=said if method == "POST" else None)
        assert response.status_code == 200, response.text
        return response.json()["value"]

    def quit(self) -> None:
        self.send("DELETE", "")
        self.client.close()

    def open(self, url: str) -> None:
        self.send("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.send("POST", "/execute/sync", script=script, args=arguments)

    def text(self, selector: str = "body") -> str:
        """As it is seen: what is hidden says nothing."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def shown(self, selector: str) -> bool:
        return bool(self.run("return document.querySelector(arguments[0]).checkVisibility()", selector))

    def element(self, selector: str) -> str:
        return str(self.send("POST", "/element", using="css selector", value=selector)[ELEMENT])

    def type(self, selector: str, text: str) -> None:
        self.send("POST", f"/element/{self.element(selector)}/value", text=text)

    def click(self, selector: str) -> None:
        self.send("POST", f"/element/{self.element(selector)}/click")

    def size(self, width: int, height: int) -> None:
        command = "Emulation.setDeviceMetricsOverride"
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("POST", "/goog/cdp/execute", cmd=command, params=size)

    def complaints(self) -> list[str]:
        """What has been logged since the last look, but for refused keys: a browser always notes the status."""
        logged = [entry["message"] for entry in self.send("POST", "/se/log", type="browser")]
        return [message for message in logged if not re.search(r"/live .*status of 40[13]", message)]


def wait(true: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def driver() -> Iterator[str]:
    if not (shutil.which("chromium") or shutil.which("google-chrome")) or not (found := shutil.which("chromedriver")):
        pytest.skip("no browser: the live page needs chromium and chromedriver (Debian: chromium-driver)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [found, f"--port={port}", "--log-level=OFF"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return bool(httpx.get(f"{url}/status", trust_env=False).json()["value"]["ready"])
            except httpx.TransportError:
                return False

        wait(ready, 30)
        yield url
        process.terminate()


@pytest.fixture(scope="module")
def running(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(driver, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(running: Browser) -> Iterator[Browser]:
    """In a window of its own, with nothing in its storage: each proxy has another port, so another origin."""
    before = running.send("GET", "/window")
    window = running.send("POST", "/window/new", type="tab")["handle"]
    running.send("POST", "/window", handle=window)
    running.complaints()
    yield running
    running.send("DELETE", "/window")
    running.send("POST", "/window", handle=before)


def deployment(up: Upstream, id: str, model: str, **more: Any) -> dict[str, Any]:
    plain = {"url": f"{up.base_url}/chat/completions", "headers": [], "stream_options": True}
    price = {"input": 1e-6, "output": 2e-6}
    return {"id": id, "model": model, "provider": "replay", "family": "chat", "plain": plain, "price": price, **more}


class Proxy:
    def __init__(self, up: Upstream, **settings: Any) -> None:
        self.gateway = Gateway(
            json.dumps(
                {
                    "groups": [
                        {"name": "fast", "deployments": ["good"]},
                        {"name": "shaky", "deployments": ["broken"], "max_retries": 0},
                        {"name": "a-model-with-a-name-that-is-rather-long-<b>&amp;", "deployments": ["slow"]},
                    ],
                    "deployments": [
                        deployment(up, "good", "hello"),
                        deployment(up, "broken", "hello?status=500", allowed_fails=0, cooldown=60.0),
                        deployment(up, "slow", "long-200?delay=3"),
                    ],
                    "settings": settings,
                }
            ).encode()
        )
        self.url = f"http://127.0.0.1:{self.gateway.listen('127.0.0.1', 0)}"

    def ask(self, model: str, key: str = "") -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=10, trust_env=False).status_code


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def proxy(up: Upstream) -> Iterator[Proxy]:
    proxy = Proxy(up)
    yield proxy
    proxy.gateway.close()


@pytest.fixture
def locked(up: Upstream) -> Iterator[Proxy]:
    proxy = Proxy(up, master_key=digest(MASTER))
    proxy.gateway.put_keys(json.dumps([{"id": digest(CLIENT), "name": "ann"}]).encode())
    yield proxy
    proxy.gateway.close()


# Without a browser ---------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(proxy: Proxy) -> None:
    with httpx.Client(base_url=proxy.url, trust_env=False) as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'"
        )
        assert "unsafe" not in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert {"page/live.js", "page/live.css", "page/icon.svg"} < set(loaded)
        assert not [name for name in loaded if "//" in name]
        assert not re.search(r"<script(?![^>]* src)|<style|\son\w+=|\sstyle=", page.text)
        for name in loaded:
            assert client.get(f"/{name}").status_code == 200
        assert client.get("/page/nothing.js").status_code == 404
        assert client.post("/").status_code == 405
        assert client.head("/").headers["content-length"] == page.headers["content-length"]


# With one ------------------------------------------------------------------------------------------------------------


def test_it_shows_what_was_asked(proxy: Proxy, browser: Browser) -> None:
    browser.open(proxy.url)
    wait(lambda: "No requests yet." in browser.text("#models"))
    for _ in range(3):
        assert proxy.ask("fast") == 200
    assert proxy.ask("shaky") == 500
    long = "a-model-with-a-name-that-is-rather-long-<b>&amp;"
    assert proxy.ask(long) == 200
    wait(lambda: browser.text("#requests-total") == "5 in all")
    rows = browser.run(
        "return [...document.querySelectorAll('#models tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert {row[0]: row[1] for row in rows} == {"fast": "3", "shaky": "1", long: "1"}
    assert "InternalServerError" in browser.text("#classes")
    assert "without a key" in browser.text("#keys")
    assert re.search(r"fast\s+[\d.]+ m?s", browser.text("#latency"))
    assert browser.text("#deployments-up") == "2 of 3 deployments up"
    assert re.search(r"broken\s+cooling, \d+ s\s+shaky\s+0\s+0\s+1", browser.text("#deployments"))
    assert browser.text("#cost").startswith("$0.0")
    wait(
        lambda: (
            browser.run("return document.querySelector('#requests-spark').ariaLabel")
            == "Requests in the last minute: 5"
        )
    )
    assert browser.text("#state") == "live"
    assert not browser.complaints()


def test_it_asks_for_the_master_key_and_takes_no_other(locked: Proxy, browser: Browser) -> None:
    assert locked.ask("fast", CLIENT) == 200
    browser.open(locked.url)
    wait(lambda: browser.shown("#door"))
    assert not browser.shown("#live")
    assert browser.run("return document.activeElement.id") == "key"

    browser.type("#key", "sk-wrong\n")
    wait(lambda: "not the master key" in browser.text("#wrong"))
    browser.run("document.querySelector('#key').value = ''")
    browser.type("#key", f"{CLIENT}\n")
    wait(lambda: "need the master key" in browser.text("#wrong"))
    assert browser.run("return sessionStorage.length") == 0

    browser.run("document.querySelector('#key').value = ''")
    browser.type("#key", MASTER)
    browser.click("#door button")
    wait(lambda: browser.shown("#live"))
    assert not browser.shown("#door")
    assert re.search(r"ann\s+1\s+1\s+0", browser.text("#keys"))
    assert MASTER not in browser.run("return document.documentElement.outerHTML + location.href")

    browser.open(locked.url)  # the tab knows it
    wait(lambda: browser.shown("#live"))
    browser.click("#forget")
    wait(lambda: browser.shown("#door"))
    assert browser.run("return sessionStorage.length + localStorage.length + document.cookie.length") == 0
    assert not browser.complaints()


def test_it_says_when_the_proxy_is_gone(proxy: Proxy, browser: Browser) -> None:
    browser.open(proxy.url)
    wait(lambda: browser.text("#state") == "live")
    proxy.gateway.close()
    wait(lambda: browser.text("#state").startswith("gone"))
    assert "does not answer" in browser.text("#notice")
    assert browser.run("return document.querySelector('#notice').role") == "status"


def test_it_does_not_ask_while_nobody_looks(proxy: Proxy, browser: Browser) -> None:
    browser.open(proxy.url)
    wait(lambda: browser.text("#state") == "live")
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    tell = "document.dispatchEvent(new Event('visibilitychange'));"
    browser.run(hide + tell, True)
    assert browser.text("#state") == "paused"
    asked = "return performance.getEntriesByType('resource').filter(r => r.name.endsWith('/live')).length"
    time.sleep(0.3)  # what was under way
    before = browser.run(asked)
    time.sleep(1.5)
    assert browser.run(asked) == before
    browser.run(hide + tell, False)
    wait(lambda: browser.run(asked) >= before + 2)
    assert browser.text("#state") == "live"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits(proxy: Proxy, browser: Browser, width: int) -> None:
    proxy.ask("fast")
    proxy.ask("a-model-with-a-name-that-is-rather-long-<b>&amp;")
    browser.size(width, 800)
    browser.open(proxy.url)
    wait(lambda: browser.text("#requests-total") == "2 in all")
    assert browser.run("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    # Tables that are wider can be moved by the keyboard too.
    assert browser.run(
        "return [...document.querySelectorAll('.table')].every(t => t.tabIndex === 0 && t.role === 'region')"
    )
    # Everything has a name for whoever does not see it.
    assert browser.run("return [...document.querySelectorAll('svg')].every(s => s.ariaLabel && s.role === 'img')")


def test_it_can_be_read_in_light_and_in_dark(proxy: Proxy, browser: Browser) -> None:
    """WCAG's contrast of 4.5 for every text, each against the ground it stands on."""
    proxy.ask("fast")
    proxy.ask("shaky")
    browser.open(proxy.url)
    wait(lambda: browser.text("#requests-total") == "2 in all")
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.send("POST", "/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})
        low = browser.run(CONTRAST)
        assert not low, (scheme, low)


CONTRAST = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
const light = (rgb) => {
  const [r, g, b] = rgb.map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const [r, g, b, a = 1] = numbers(getComputedStyle(element).backgroundColor);
    if (a === 1) return [r, g, b];
  }
};
const low = [];
for (const element of document.querySelectorAll('body *')) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!says || !element.checkVisibility()) continue;
  const text = numbers(getComputedStyle(element).color).slice(0, 3);
  const [one, other] = [light(text), light(ground(element))].sort((a, b) => b - a);
  const contrast = (one + 0.05) / (other + 0.05);
  if (contrast < 4.5) low.push([element.tagName, element.textContent, contrast]);
}
return low;
"""
