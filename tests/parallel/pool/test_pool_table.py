"""What a pool promises, each in a real kernel; how fast it is, `benchmarks/pool.py` measures."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path

import pytest

from .conftest import PREAMBLE, Kernel, Reply, wait_for, wait_until_gone

pytestmark = pytest.mark.kernel

PIDS = "[r.pid for r in pool.status()]"


def test_functions_and_classes_from_cells(kernel: Kernel) -> None:
    kernel.value("""
scale = 3
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, bias=False)
    def forward(self, x):
        return scale * self.layer(x)
def train(net, *, steps):
    for _ in range(steps):
        loss = net(torch.ones(1, 2)).sum()
        loss.backward()
        for p in net.parameters():
            dist.all_reduce(p.grad)
    with torch.no_grad():
        net.layer.weight.add_(net.layer.weight.grad)
    return net, int(os.environ["RANK"])
net = Net()
before, forward = net.layer.weight.clone(), Net.forward
(first, zero), (second, one) = pool.run(train, net, steps=2)
""")
    assert kernel.value("(zero, one)") == (0, 1)
    # What comes back is an instance of the notebook's class, which is left as it is.
    assert kernel.value("type(first) is Net and type(second) is Net and Net.forward is forward")
    assert kernel.value("torch.equal(net.layer.weight, before)")
    assert kernel.value("(first.layer.weight - before).flatten().tolist()") == [18.0, 18.0]
    kernel.value("scale = 0")
    assert kernel.value("first(torch.ones(1, 2)).item()") == 0


def test_start_after_torch_threads_and_a_second_run_that_is_far_quicker(
    new_kernel: Kernel,
) -> None:
    new_kernel.value("torch.set_num_threads(2); _ = torch.randn(800, 800) @ torch.randn(800, 800)")
    cold, sums, threads = new_kernel.value("""
start = time.perf_counter()
pool = WorkerPool(2)
def collect():
    x = torch.randn(500, 500) @ torch.ones(500, 1)
    dist.all_reduce(x)
    return x.shape[0], torch.get_num_threads()
out = pool.run(collect)
time.perf_counter() - start, [n for n, _ in out], [t for _, t in out]
""")
    cores = len(os.sched_getaffinity(0))
    assert sums == [500, 500] and threads == [max(1, cores // 2)] * 2
    new_kernel.value("def empty(): pass")
    times = sorted(new_kernel.value("[clock(pool.run, empty) for _ in range(21)]"))
    assert 5 * times[10] < cold


def test_output_is_labelled_and_prompt(kernel: Kernel, tmp_path: Path) -> None:
    """What was printed arrives while the function still runs: it waits until that is seen."""
    seen = tmp_path / "seen"
    kernel.value("loud = WorkerPool(2, output='all'); _ = loud.run(int)")
    kernel.begin(f"""
def talk():
    print("first from", os.environ["RANK"], flush=False)
    os.system("echo from a program")
    while not os.path.exists({str(seen)!r}): time.sleep(0.01)
    print("second", end="")
_ = loud.run(talk); print("over"); loud.close()
""")
    lines = [
        f"[rank {rank}] {line}\n"
        for rank in (0, 1)
        for line in (f"first from {rank}", "from a program")
    ]
    text = kernel.end(*lines).text
    assert "second" not in text
    seen.touch()
    text += kernel.end().text
    assert all(f"[rank {rank}] second\n" in text for rank in (0, 1))
    assert text.endswith("over\n")


def test_only_rank_0_is_shown_by_default(kernel: Kernel) -> None:
    reply = kernel.run("_ = pool.run(lambda: print('I am', os.environ['RANK']))")
    assert reply.text == "I am 0\n"
    assert kernel.value("pool.output(1)") == "I am 1\n"


def test_one_rank_raises_while_another_waits(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    reply = kernel.run("""
def lopsided():
    print("before", os.environ["RANK"])
    if os.environ["RANK"] == "1":
        return {}["missing"]
    dist.all_reduce(torch.ones(1))
pool.run(lopsided)
""")
    assert reply.error == ("KeyError", "'missing'")
    assert "This happened on rank 1" in reply.trace
    assert 'return {}["missing"]' in reply.trace and "in lopsided" in reply.trace
    assert "_serve_one" not in reply.trace and "call.py" not in reply.trace
    assert "[rank 1] before 1\n" in reply.text  # the output of the rank that failed
    assert kernel.value("pool.run(lambda: dist.get_rank())") == [0, 1]
    assert kernel.value(PIDS) == pids


def test_subgroups_end_with_a_failure(kernel: Kernel) -> None:
    code = """
def grouped(fail):
    group = dist.new_group([0, 1])
    if fail and os.environ["RANK"] == "0":
        raise OSError("no")
    x = torch.ones(1)
    dist.all_reduce(x, group=group)
    return x.item()
"""
    kernel.value(code)
    for _ in range(3):
        assert kernel.run("pool.run(grouped, True)").error == ("OSError", "no")
        assert kernel.value("pool.run(grouped, False)") == [2.0, 2.0]


def test_a_rank_that_was_cut_short_while_it_joined_joins_the_next_time(kernel: Kernel) -> None:
    """Between the group and its place as the default one: the state that a failure leaves then."""
    reply = kernel.run("""
def cut_short():
    if os.environ["RANK"] == "1":
        dist.distributed_c10d._update_default_pg(None)
        raise OSError("cut short")
pool.run(cut_short)
""")
    assert reply.error == ("OSError", "cut short")
    assert kernel.value("pool.run(lambda: dist.get_world_size())") == [2, 2]


def interrupted(kernel: Kernel, code: str, resting: bool = True) -> Reply:
    """Interrupt a cell when all its ranks are where they are to be found, and see it end."""
    kernel.begin(code)
    kernel.meet(resting=resting)
    kernel.interrupt()
    reply = kernel.end()
    assert reply.error is not None and reply.error[0] == "KeyboardInterrupt", reply.trace
    return reply


def test_interrupt_while_training(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    training = """
def endless():
    net, step = torch.nn.Linear(100, 100), 0
    while True:
        net(torch.randn(64, 100)).sum().backward()
        dist.all_reduce(net.weight.grad)
        step += 1
        if step == 3:  # nothing is imported any more: a rank that is found there is replaced
            here()
pool.run(endless)
"""
    interrupted(kernel, training, resting=False)
    assert kernel.value(PIDS) == pids


def test_interrupt_in_a_deadlock(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    deadlock = """
def deadlock():
    here()
    if os.environ["RANK"] == "0":
        dist.all_reduce(torch.ones(1))
    else:
        dist.broadcast(torch.ones(1), src=0); dist.recv(torch.ones(1), src=0)
pool.run(deadlock)
"""
    reply = interrupted(kernel, deadlock)
    assert kernel.value(PIDS) == pids, f"{reply.text}\n{reply.trace}"
    # Both ranks in the store: one waits for a key that never comes.
    waiting = "pool.run(lambda: (here(), dist.distributed_c10d._get_default_store().get('x')))"
    reply = interrupted(kernel, waiting)
    assert kernel.value(PIDS) == pids, f"{reply.text}\n{reply.trace}"


def test_a_rank_that_was_not_woken_from_the_store_is_woken_again(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    waiting = """
def waiting():
    from spnb.parallel.pool import wake
    shut, left = wake.shut_connections, [3]
    def deaf(listeners):
        left[0] -= 1
        if left[0] < 1:  # neither the wake from collectives nor the first one from the store
            wake.shut_connections = shut
            shut(listeners)
    wake.shut_connections = deaf
    here()
    dist.distributed_c10d._get_default_store().get("x")
pool.run(waiting)
"""
    interrupted(kernel, waiting)
    assert kernel.value(PIDS) == pids


UNLUCKY = """
def be_unlucky():
    from spnb.parallel.pool import wake
    shut = wake.shut_connections
    def broken(listeners):
        wake.shut_connections = shut
        raise ValueError("a line of /proc that nobody expected")
    wake.shut_connections = broken
"""


def test_a_worker_listens_on_after_a_failed_wake(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    unlucky = f"""{UNLUCKY}
def unlucky():
    be_unlucky()
    here()
    dist.distributed_c10d._get_default_store().get("x")
pool.run(unlucky)
"""
    interrupted(kernel, unlucky)
    assert kernel.value(PIDS) == pids


def test_a_worker_that_cannot_wake_the_others_lives_on(kernel: Kernel) -> None:
    """As above, but it is the rank that fails itself; the notebook wakes the other one."""
    pids = kernel.value(PIDS)
    reply = kernel.run(f"""{UNLUCKY}
def fails():
    dist.barrier()
    if dist.get_rank() == 1:
        be_unlucky()
        raise LookupError("of my own")
    dist.all_reduce(torch.ones(1))
pool.run(fails)
""")
    assert reply.error == ("LookupError", "of my own")
    assert kernel.value("pool.run(lambda: dist.get_rank())") == [0, 1]
    assert kernel.value(PIDS) == pids


def test_what_cannot_be_interrupted_is_killed(kernel: Kernel) -> None:
    pids = kernel.value(PIDS)
    stubborn = """
def stubborn():
    here()
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
pool.run(stubborn)
"""
    kernel.value("longer, call.KILL_AFTER = call.KILL_AFTER, kill_after")
    reply = interrupted(kernel, stubborn)
    kernel.value("call.KILL_AFTER = longer")
    assert all(f"rank {r} could not be interrupted and was killed" in reply.text for r in (0, 1))
    kernel.value("_ = pool.run(int)")
    assert not set(kernel.value(PIDS)) & set(pids)


def test_an_interrupt_that_the_function_handles_loses_nothing(kernel: Kernel) -> None:
    kernel.begin("""
def careful():
    try:
        dist.barrier()  # both ranks are here
        here()
        time.sleep(600)
    except KeyboardInterrupt:
        return "what I have"
pool.run(careful)
""")
    kernel.meet()
    kernel.interrupt()
    assert ast.literal_eval(kernel.end().result) == ["what I have"] * 2


HELD = """
import os, sys, time
if any("spawn_main" in word for word in sys.orig_argv):
    notebook = os.getppid()
    while not os.path.exists({mark!r}) and os.getppid() == notebook:
        time.sleep(0.02)
"""


def test_interrupt_during_the_start(new_kernel: Kernel, tmp_path: Path) -> None:
    """It does not wait for that: the workers are held in their first moments until it is over."""
    mark = tmp_path / "may start"
    (tmp_path / "sitecustomize.py").write_text(HELD.format(mark=str(mark)))
    new_kernel.begin(f"""
class Look:
    said = False
    def look(self):
        if not self.said: print("go")
        self.said = True
os.environ["PYTHONPATH"] = {str(tmp_path)!r} + os.pathsep + os.environ["PYTHONPATH"]
pool, look = WorkerPool(2), Look()
pool.watch(look.look)  # it is called within the run
pool.run(int)
""")
    new_kernel.end("go\n")
    new_kernel.interrupt()
    reply = new_kernel.end()
    assert reply.error is not None and reply.error[0] == "KeyboardInterrupt"
    workers = new_kernel.workers()
    assert len(workers) == 2 and not mark.exists()
    mark.touch()
    assert new_kernel.value("pool.run(lambda: dist.get_world_size())") == [2, 2]
    assert new_kernel.children() == workers


@pytest.mark.parametrize("doing", ["start", "training", "deadlock"])
def test_killed_kernel_leaves_nothing(new_kernel: Kernel, doing: str) -> None:
    new_kernel.begin(f"""
def work(doing):
    import subprocess
    if doing == "training":
        step = 0
        while True:
            dist.all_reduce(torch.ones(1000))
            step += 1
            if step == 3: here()
    here()
    if os.environ["RANK"] == "0":
        dist.barrier()
    time.sleep(600)
pool = WorkerPool(2)
pool.run(work, {doing!r})
""")
    if doing == "start":
        wait_for(lambda: len(new_kernel.workers()) == 2, "workers to be started")
    else:
        new_kernel.meet(resting=doing == "deadlock")
    workers = new_kernel.workers()
    assert len(workers) == 2
    new_kernel.kill()
    wait_until_gone(workers)


def test_kernel_killed_after_a_start_in_a_thread(new_kernel: Kernel) -> None:
    """The thread that started the pool ends: its workers live on, until the kernel is killed."""
    new_kernel.value("""
def begin():
    global pool, out
    pool = WorkerPool(2)
    out = pool.run(lambda: dist.get_rank())
thread = threading.Thread(target=begin)
thread.start(); thread.join()
""")
    assert new_kernel.value("out") == [0, 1]
    assert new_kernel.value("pool.run(lambda: dist.get_rank())") == [0, 1]
    workers = new_kernel.children()
    new_kernel.begin("pool.run(lambda: here() or time.sleep(600))")
    new_kernel.meet()
    new_kernel.kill()
    wait_until_gone(workers)


@pytest.mark.parametrize("other", ["waits", "sleeps"])
def test_worker_killed(kernel: Kernel, other: str) -> None:
    old = kernel.value(PIDS)
    wait = "dist.all_reduce(torch.ones(1))" if other == "waits" else "time.sleep(600)"
    kernel.begin(f"pool.run(lambda: (here(), dist.get_rank() or {wait}, time.sleep(600)))")
    kernel.meet()
    os.kill(old[1], signal.SIGKILL)
    reply = kernel.end()
    assert reply.error is not None and reply.error[0] == "WorkerDied"
    assert "rank 1 was killed (SIGKILL): out of memory?" in reply.error[1]
    assert kernel.value("pool.run(lambda: dist.get_rank())") == [0, 1]
    new = kernel.value(PIDS)
    assert new[0] == old[0] and new[1] != old[1]


def test_worker_killed_between_runs(kernel: Kernel) -> None:
    old = kernel.value(PIDS)
    os.kill(old[0], signal.SIGKILL)
    # Its threads end one after the other; the last one hangs up.
    wait_for(lambda: kernel.value("pool.status()[0].state == 'ended'"), "the worker to end")
    assert kernel.value("pool.run(lambda: dist.get_rank())") == [0, 1]


def test_200_mb_result(kernel: Kernel) -> None:
    kernel.value("""
def big(same):
    return {"w": torch.full((50_000_000,), 1.0 if same else float(dist.get_rank()))}
def shm():
    "Megabytes of shared memory that this process has in use; what it has twice counts once."
    rows = dict(l.split(":") for l in open("/proc/self/smaps_rollup") if ":" in l)
    return int(rows["Pss_Shmem"].split()[0]) / 1000
out = pool.run(big, True)
""")
    assert kernel.value("[o['w'].sum().item() for o in out]") == [50_000_000.0] * 2
    assert 150 < kernel.value("shm()") < 250, "what is equal takes memory once"
    assert kernel.value("out[0]['w'].zero_(); out[1]['w'][:9].tolist()") == [1.0] * 9
    kernel.value("out = pool.run(big, False)")
    assert kernel.value("[o['w'][-1].item() for o in out]") == [0.0, 1.0]
    kernel.value("del out")


def test_200_mb_shared_are_not_copied(kernel: Kernel) -> None:
    kernel.value("""
def private():
    rows = dict(l.split(":") for l in open("/proc/self/status"))
    return int(rows["RssAnon"].split()[0]) / 1024
def read(data):
    start = private()
    return data.sum().item(), private() - start
plain = torch.ones(50_000_000)
data = share(plain)
first, second = pool.run(read, data), pool.run(read, data)
""")
    assert kernel.value("[s for s, _ in first + second]") == [50_000_000.0] * 4
    assert max(kernel.value("[mb for _, mb in first + second]")) < 4.0
    kernel.value("_ = pool.run(lambda x: x[dist.get_rank()].fill_(7.0 + dist.get_rank()), data)")
    assert kernel.value("data[:3].tolist()") == [7.0, 8.0, 1.0]
    # Without share, an argument is the rank's own.
    kernel.value("_ = pool.run(lambda x: x.zero_().sum(), plain)")
    assert kernel.value("plain[:3].tolist()") == [1.0, 1.0, 1.0]
    kernel.value("del data, plain")


def test_two_kernels_at_once(kernel: Kernel, new_kernel: Kernel) -> None:
    new_kernel.begin(PREAMBLE + "pool = WorkerPool(2); pool.run(lambda: dist.get_rank())")
    code = "second = WorkerPool(2); [second.run(lambda: dist.get_rank()), pool.run(dist.get_rank)]"
    assert kernel.value(code) == [[0, 1], [0, 1]]
    assert ast.literal_eval(new_kernel.end().result) == [0, 1]
    kernel.value("second.close()")
