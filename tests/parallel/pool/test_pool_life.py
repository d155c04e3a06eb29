"""What a pool holds, and that it lets go of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import HANG, ROOT, Kernel, wait_for, wait_until_gone

pytestmark = pytest.mark.kernel


def test_nothing_leaks(kernel: Kernel) -> None:
    kernel.value("""
import gc
def held():
    gc.collect(); return len(os.listdir("/proc/self/fd")), threading.active_count()
def work(x, fail):
    if fail and dist.get_rank(): raise ValueError("no")
    dist.all_reduce(x)
    return x, held()
def fail(n):
    for _ in range(n):
        try: pool.run(work, torch.ones(400_000), True)
        except ValueError: pass
big, common = torch.ones(400_000), share(torch.ones(400_000))
for _ in range(2): pool.run(work, big, False); fail(1)
before = held(), [h for _, h in pool.run(work, big, False)]
for _ in range(20): pool.run(work, big, False)
for _ in range(5): pool.run(work, common, False)
fail(10)
after = held(), [h for _, h in pool.run(work, big, False)]
""")
    before, after = kernel.value("before"), kernel.value("after")
    assert after[0] == before[0]
    for (files_before, threads_before), (files, threads) in zip(before[1], after[1], strict=True):
        assert files <= files_before + 2 and threads <= threads_before + 2


def test_pools_leave_nothing(kernel: Kernel) -> None:
    kernel.value("""
def held(): return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
def one():
    with WorkerPool(1) as short: return short.run(int)
one(); before = held()
for _ in range(3): one()
after = held()
lost = WorkerPool(1); lost.run(int); pid = lost.status()[0].pid
del lost
import gc; _ = gc.collect()
""")
    assert kernel.value("after") == kernel.value("before")
    assert not psutil.pid_exists(kernel.value("pid"))


def test_status_and_panel(kernel: Kernel) -> None:
    ranks = kernel.value("[(r.rank, r.device, r.threads, r.state) for r in pool.status()]")
    assert ranks == [(0, "cpu", ranks[0][2], "idle"), (1, "cpu", ranks[0][2], "idle")]
    assert all(100e6 < m < 1e9 for m in kernel.value("[r.memory for r in pool.status()]"))
    kernel.value("x = pool._repr_html_()")
    html = kernel.value("x")
    assert html.count("<tr") == 3 and "idle" in html and "WorkerPool(2)" in html
    assert kernel.value("repr(pool)") == "<WorkerPool(2): idle, idle>"


def test_restart_and_idle_timeout(kernel: Kernel) -> None:
    kernel.value("short = WorkerPool(1, idle_timeout=0.3); _ = short.run(int)")
    old = kernel.value("short.status()[0].pid")
    wait_for(lambda: kernel.value("short.status()[0].pid") is None, "the worker to be let go")
    assert old is None or not psutil.pid_exists(old)
    assert kernel.value("short.run(lambda: dist.get_world_size())") == [1]
    kernel.value("short.restart()")
    assert kernel.value("short.run(lambda: dist.get_world_size())") == [1]
    kernel.value("short.close(); short.close()")


def test_the_store_listens_on_loopback_only(kernel: Kernel) -> None:
    processes = [psutil.Process(kernel.pid), *kernel.children()]
    listening = [
        c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN"
    ]
    assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}


def test_workers_follow_the_notebook(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text("value = 5\n")
    kernel.value(f"""
import sys; home = os.getcwd()
sys.path.insert(0, {str(tmp_path)!r}); os.chdir({str(tmp_path)!r})
def look():
    import my_module
    return my_module.value, os.getcwd(), os.environ["MASTER_ADDR"], os.environ["LOCAL_RANK"]
seen = pool.run(look)
os.chdir(home); sys.path.pop(0)
""")
    assert kernel.value("seen") == [(5, str(tmp_path), "127.0.0.1", str(r)) for r in (0, 1)]


def test_views_and_ties_survive(kernel: Kernel) -> None:
    kernel.value("""
import numpy as np
base = torch.arange(600_000.0)
model = torch.nn.Sequential(torch.nn.Linear(600, 600), torch.nn.Linear(600, 600))
model[1].weight = model[0].weight
array = np.ones((400, 400), order="F")
def check(base, view, model, array, empty, small):
    base[10] = -1; array[0, 0] = 3; small[0] = 2
    tied = model[0].weight is model[1].weight
    return (view[0].item(), tied, array.sum().item(), empty.shape, small)
out = pool.run(check, base, base[10:20], model, array, torch.empty(0, 3), torch.zeros(2))
""")
    assert kernel.value("out[0][:4] == (-1.0, True, 160_002.0, (0, 3))")
    assert kernel.value("base[10].item(), array[0, 0].item(), out[1][4].tolist()") == (
        10.0,
        1.0,
        [2.0, 0.0],
    )
    kernel.value("""
pair = share({"all": base, "some": base[5:], "other": [torch.ones(3, requires_grad=True)]})
back = pool.run(lambda p: p, pair)[0]
pair["all"][7] = -7
""")
    assert kernel.value("pair['some'][2].item(), back['some'][2].item()") == (-7.0, -7.0)
    assert kernel.value("pair['other'][0].requires_grad")


def test_progress_is_one_output(kernel: Kernel) -> None:
    reply = kernel.run("""
from spnb.parallel.progress import report
def steps():
    begun = time.monotonic()
    for i in range(1, 2001):
        report(i, 2000, loss=1 / i)
        while i % 200 == 0 and time.monotonic() < begun + i / 2000: pass  # a second in all
_ = pool.run(steps)
""")
    assert len(reply.displays) == 1
    (panel,) = reply.displays.values()
    assert "step 2000/2000  loss 0.0005" in panel["text/plain"]
    assert "done" in panel["text/html"] and "progressbar" in panel["text/html"]
    assert 3 <= reply.updates <= 10 * reply.seconds + 5
    reply = kernel.run("steps()")
    (panel,) = reply.displays.values()
    assert "step 2000/2000" in panel["text/plain"]


SMALL_SHM = """
import torch, torch.distributed as dist
from spnb.parallel.memory import share
from spnb.parallel.pool import WorkerPool
with WorkerPool(2) as pool:
    data = torch.ones(50_000_000)
    print(pool.run(lambda x, y: (x + y).sum().item(), data, share(data)))
    print([len(r) for r in pool.run(lambda: torch.ones(50_000_000))])
"""


@pytest.mark.pool
def test_64_mb_of_dev_shm(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SMALL_SHM)
    mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("this machine does not allow a mount of one's own (unshare -m)")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {sys.executable} {script}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout == "[100000000.0, 100000000.0]\n[50000000, 50000000]\n", done.stderr


@pytest.mark.pool
def test_a_script_needs_no_main_guard_and_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom spnb.parallel.pool import WorkerPool\n"
        "pool = WorkerPool(2)\n"
        "print(pool.run(lambda: os.getpid()))\n"
        "pool.run(lambda: 1 / 0)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RANK": "7", "WORLD_SIZE": "9"},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 1 and done.stdout.count("[") == 1
    assert "ZeroDivisionError" in done.stderr and "This happened on rank" in done.stderr
    assert not any(psutil.pid_exists(pid) for pid in eval(done.stdout))


def test_an_interrupt_in_an_import_leaves_no_half_loaded_module(
    new_kernel: Kernel, tmp_path: Path
) -> None:
    """Python keeps what it had loaded within a package whose import was cut; ours starts anew."""
    package = tmp_path / "slowly"
    package.mkdir()
    mark = tmp_path / "importing"
    (package / "__init__.py").write_text(f"""
import os, slowly.part, time
if not os.path.exists({str(mark)!r}):
    open({str(mark)!r}, "w").close()
    time.sleep(600)  # it is cut short
""")
    (package / "part.py").write_text("value = 7\n")
    new_kernel.value(f"""
import sys
sys.path.append({str(tmp_path)!r})
def use():
    import slowly
    return slowly.part.value
def stumble():
    if os.environ["RANK"] == "0":
        while not os.path.exists({str(mark)!r}): time.sleep(0.01)
        raise ValueError("while the other imports")
    return use()
pool = WorkerPool(2)
pool.run(int)
""")
    assert "ValueError" in new_kernel.run("pool.run(stumble)").trace
    assert new_kernel.value("pool.run(use)") == [7, 7]
    new_kernel.run("pool.close()")
    assert not new_kernel.children()


def test_workers_do_what_they_have_to_at_their_end(new_kernel: Kernel, tmp_path: Path) -> None:
    new_kernel.value(f"""
        def say_goodbye():
            import atexit, pathlib
            file = pathlib.Path({str(tmp_path)!r}) / os.environ["RANK"]
            atexit.register(lambda: file.write_text("goodbye"))
        pool = WorkerPool(2)
        pool.run(say_goodbye)
        """.replace("\n        ", "\n"))  # fmt: skip
    new_kernel.run("pool.close()")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["goodbye"] * 2


def test_a_forked_process_ends_with_its_own_exit_code(new_kernel: Kernel) -> None:
    codes = new_kernel.value("""
        def fork():
            import os
            if (child := os.fork()) == 0:
                import atexit
                atexit._run_exitfuncs()
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        pool = WorkerPool(2)
        pool.run(fork)
        """.replace("\n        ", "\n"))  # fmt: skip
    assert codes == [7, 7]


def test_a_function_may_start_processes_of_its_own(new_kernel: Kernel) -> None:
    """As torch's DataLoader does; a daemon of multiprocessing may not."""
    loaded = new_kernel.value("""
        from torch.utils.data import DataLoader
        def load():
            loader = DataLoader(list(range(4)), batch_size=4, num_workers=1)
            return [batch.tolist() for batch in loader]
        pool = WorkerPool(2)
        pool.run(load)
        """.replace("\n        ", "\n"))  # fmt: skip
    assert loaded == [[[0, 1, 2, 3]]] * 2
    children = new_kernel.children()
    new_kernel.run("pool.close()")
    wait_until_gone(children)
