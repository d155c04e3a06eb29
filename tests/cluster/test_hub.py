"""A real JupyterHub on a real Slurm, in a real browser; and what an attacker makes of its form."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.cluster.slurm import Slurm, missing, slurm
from tests.support import leftovers

ROOT = Path(__file__).parents[2]
PROXY = ROOT / "build/hub/node_modules/.bin"
READER = getpass.getuser()

pytestmark = pytest.mark.service

NOTEBOOK = """
import os, ipywidgets
slider = ipywidgets.IntSlider(3, 0, 9)
slider.add_class("t-slider")
label = ipywidgets.Label("three")
label.add_class("t-label")
slider.observe(lambda change: setattr(label, "value", f"now {change['new']}"), "value")
print("found", os.environ["SPNB_SCALE"], os.environ["CUDA_VISIBLE_DEVICES"], os.getcwd())
ipywidgets.VBox([slider, label])
"""
POOL = "import spnb\nwith spnb.WorkerPool(2) as pool: print('ranks', pool.run(lambda: 1))"


@dataclass
class Hub:
    """A running hub.

    Attributes:
        url: where readers come in.
        password: theirs.
        token: of a service that may do everything.
        home: of the reader.
        cluster: where their servers run.
        log: what the hub says.
    """

    url: str
    password: str
    token: str
    home: Path
    cluster: Slurm
    log: Path

    def ask(self, method: str, what: str, body: Any = None) -> tuple[int, str]:
        """Speak to the REST interface: status and answer."""
        request = urllib.request.Request(
            f"{self.url}/hub/api/{what}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=180) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def jobs(self) -> list[str]:
        """Names of the jobs that there are, or were."""
        said = self.cluster.command("squeue", "-h", "-t", "all", "-o", "%i %j %T")
        return [line for line in said.splitlines() if line]


def lacking() -> list[str]:
    """What this machine lacks for a hub of its own."""
    found = missing()
    found += [] if importlib.util.find_spec("batchspawner") else ["batchspawner"]
    found += [] if (PROXY / "configurable-http-proxy").exists() else ["configurable-http-proxy"]
    return found + ([] if shutil.which("chromium") else ["chromium"])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    assert not lacking(), f"no {', '.join(lacking())}: `make system-packages hub` installs them"
    folder = tmp_path_factory.mktemp("hub")
    home, state = folder / "home", folder / "state"
    for each in (home, state):
        each.mkdir()
    ports = [_free_port() for _ in range(3)]
    password, token = secrets.token_hex(16), secrets.token_hex(16)
    with slurm(folder / "slurm") as cluster:
        env = cluster.env | {
            "PATH": os.pathsep.join([str(PROXY), os.environ["PATH"], "/usr/sbin", "/sbin"]),
            "SPNB_TEST_CONFIG": str(ROOT / "deploy/jupyterhub/jupyterhub_config.py"),
            "SPNB_TEST_PASSWORD": password,
            "SPNB_TEST_TOKEN": token,
            "SPNB_HUB_AUTHENTICATOR": "shared-password",
            "SPNB_HUB_READERS": READER,
            "SPNB_HUB_URL": f"http://127.0.0.1:{ports[0]}",
            "SPNB_HUB_PORT": str(ports[1]),
            "SPNB_PROXY_API": f"http://127.0.0.1:{ports[2]}",
            "SPNB_HUB_STATE": str(state),
            "SPNB_READER_HOME": str(home),
            "SPNB_VENV": sys.prefix,
            "SPNB_CORES_PER_GPU": "1",
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(32),
        }
        log = folder / "log"
        with log.open("w") as said:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "--config",
                 str(ROOT / "tests/cluster/hub_config.py")],
                env=env, stdout=said, stderr=said, cwd=state,
            )  # fmt: skip
        running = Hub(env["SPNB_HUB_URL"], password, token, home, cluster, log)
        try:
            _until(lambda: _answers(running), 180, log)
            yield running
        finally:
            running.ask("DELETE", f"users/{READER}/server")
            hub = psutil.Process(server.pid)
            everything = [*hub.children(recursive=True), hub]  # a service of its own may linger
            for process in everything:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            for process in psutil.wait_procs(everything, timeout=30)[1]:
                process.kill()
            server.wait()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=shutil.which("chromium"), args=FLAGS,
            viewport={"width": 1300, "height": 1000},
        )  # fmt: skip
        yield context.new_page()
        context.close()


def log_in(page: Page, hub: Hub, password: str) -> None:
    page.goto(f"{hub.url}/hub/login")
    page.fill("input[name=username]", READER)
    page.fill("input[name=password]", password)
    page.click("input[type=submit]")
    page.wait_for_load_state("networkidle")


def test_a_wrong_password_opens_nothing(hub: Hub, page: Page) -> None:
    log_in(page, hub, "wrong")
    page.wait_for_selector("text=Invalid username or password")


def test_what_the_hub_starts_is_watched(hub: Hub) -> None:
    """Services and the proxy carry the suite's mark, so one that stays behind would be found."""
    marked = {
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get(leftovers.RUN) == os.environ[leftovers.RUN]
    }
    for name in ("jupyterhub_idle_culler", "configurable-http-proxy"):
        assert any(name in command for command in marked), name


ATTACKS = [
    {"cmd": "touch {mark}"},
    {"prologue": "touch {mark}"},
    {"gpus": "1\n#SBATCH --wrap='touch {mark}'"},
    {"gpus": "$(touch {mark})"},
    {"hours": "1\n\ntouch {mark}\n"},
    {"scale": "ci; touch {mark}"},
    {"scale": "{{{{cmd}}}}"},
    {"gpus": 64},
    {"homedir": "/etc", "keepvars": "ALL"},
    {"lines": ["--uid=0"]},
    {"batch_script": "#!/bin/sh\ntouch {mark}"},
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: next(iter(attack)))
def test_attacks_on_the_options_change_nothing(
    hub: Hub, tmp_path: Path, attack: dict[str, Any]
) -> None:
    mark, before = tmp_path / "mark", hub.jobs()
    filled = {k: v.format(mark=mark) if isinstance(v, str) else v for k, v in attack.items()}
    status, said = hub.ask("POST", f"users/{READER}/server", filled)
    assert status == 400, said
    assert "must be one of" in said or "There is no option" in said
    assert hub.jobs() == before and not mark.exists()


def test_a_form_that_was_tampered_with_is_refused(hub: Hub, page: Page, tmp_path: Path) -> None:
    before = hub.jobs()
    log_in(page, hub, hub.password)
    page.goto(f"{hub.url}/hub/spawn")
    evil = f"1\n#SBATCH --wrap='touch {tmp_path / 'mark'}'"
    page.eval_on_selector("select[name=gpus] option", "(o, v) => { o.value = v }", evil)
    page.select_option("select[name=gpus]", index=0)
    page.click("#spawn_form [type=submit]")
    page.wait_for_selector("text=gpus must be one of 1, 0, 2, 4, 8")
    assert hub.jobs() == before and not (tmp_path / "mark").exists()


def test_a_reader_logs_in_chooses_computes_and_stops(hub: Hub, page: Page) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (NOTEBOOK, POOL)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (hub.home / "spnb").mkdir(exist_ok=True)
    nbformat.write(notebook, hub.home / "spnb/try.ipynb")
    log_in(page, hub, hub.password)
    page.goto(f"{hub.url}/hub/spawn")
    assert page.inner_text("label[for=spnb-hours]") == "Hours"
    page.select_option("select[name=gpus]", "2")
    page.select_option("select[name=hours]", "1")
    page.select_option("select[name=scale]", "ci")
    page.click("#spawn_form [type=submit]")
    page.wait_for_url(f"**/user/{READER}/lab/**", timeout=180_000)
    assert (hub.home / "spnb/tutorials/00_start_here.ipynb").exists()  # a copy of one's own
    wait_for_kernel(page, "tutorials/00_start_here.ipynb")  # the hub opens it
    page.goto(f"{hub.url}/user/{READER}/lab/tree/try.ipynb?reset")
    wait_for_kernel(page, "try.ipynb")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_selector("text=found ci 0,1", timeout=180_000)
    page.wait_for_selector("text=ranks [1, 1]", timeout=180_000)
    handle = page.locator(".t-slider [role=slider]")
    handle.focus()
    handle.press("ArrowRight")
    page.wait_for_selector(".t-label:has-text('now 4')", timeout=180_000)
    job = hub.cluster.command("squeue", "-h", "-o", "%j %T %l %b")
    assert job == "spnb-notebook RUNNING 1:00:00 gres:gpu:2"
    assert hub.ask("DELETE", f"users/{READER}/server")[0] in (202, 204)
    _until(lambda: hub.cluster.command("squeue", "-h") == "", 180, hub.log)


def wait_for_kernel(page: Page, notebook: str) -> None:
    """Wait until a notebook is open, and its kernel has nothing to do, for a while."""
    page.wait_for_function("window.jupyterapp", timeout=180_000)
    idle = """notebook => {
        const open = jupyterapp.shell.currentWidget;
        const ready = open?.context?.path === notebook
            && open.sessionContext?.session?.kernel?.status === 'idle';
        if (!ready) { window.idleSince = null; return false; }
        window.idleSince ??= Date.now();
        return Date.now() - window.idleSince > 2000;
    }"""
    page.wait_for_function(idle, arg=notebook, timeout=180_000)


def _answers(hub: Hub) -> bool:
    try:
        return hub.ask("GET", "")[0] == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _until(done: Any, seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
