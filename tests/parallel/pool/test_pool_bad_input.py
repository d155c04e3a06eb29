"""What a user can get wrong: each time one sentence, and a pool that works on."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Kernel, Reply

pytestmark = pytest.mark.kernel


def fails(kernel: Kernel, code: str, kind: str, *words: str) -> Reply:
    """Run a cell that must fail, with an error that says all of this."""
    reply = kernel.run(code)
    assert reply.error is not None, "it went well"
    assert reply.error[0] == kind, reply.trace
    for word in words:
        assert word in reply.error[1], reply.error[1]
    return reply


def test_argument_that_cannot_be_pickled(kernel: Kernel) -> None:
    fails(
        kernel,
        "def use(data, n): pass\npool.run(use, {'x': [1, threading.Lock()]}, n=1)",
        "TypeError",
        "argument 'data' cannot be sent: data['x'][1] is a _thread.lock, which cannot be pickled.",
    )
    fails(
        kernel,
        "class Box: pass\nbox = Box(); box.items = (i for i in [])\npool.run(lambda b: 1, [box])",
        "TypeError",
        "argument 'b' cannot be sent: b[0].items is a generator, which cannot be pickled.",
    )


def test_function_that_cannot_be_pickled(kernel: Kernel) -> None:
    fails(
        kernel,
        "lock = threading.Lock()\ndef guarded():\n    with lock: pass\npool.run(guarded)",
        "TypeError",
        "the function 'guarded' cannot be sent: lock is a _thread.lock",
    )


def test_result_that_cannot_be_pickled(kernel: Kernel) -> None:
    fails(
        kernel,
        "pool.run(lambda: {'loss': 1.0, 'guard': threading.Lock()})",
        "TypeError",
        "cannot be sent: result['guard'] is a _thread.lock",
        "Return what it is made of instead.",
    )


def test_closed_pool(kernel: Kernel) -> None:
    code = "done = WorkerPool(1)\nwith done: pass\n"
    fails(kernel, code + "done.run(int)", "RuntimeError", "This pool is closed: make a new one")
    fails(kernel, "with done: pass", "RuntimeError", "This pool is closed")
    kernel.value("done.close()")  # twice does no harm
    assert kernel.value("repr(done)") == "<WorkerPool(1) (closed): ended>"


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("WorkerPool(0)", "ValueError", "at least 1, not 0"),
        ("WorkerPool(-1)", "ValueError", "at least 1, not -1"),
        ("WorkerPool('2')", "TypeError", "must be an int, not '2'"),
        ("WorkerPool(True)", "TypeError", "must be an int, not True"),
        ("WorkerPool(2, output='rank1')", "ValueError", "'rank0' or 'all', not 'rank1'"),
        ("WorkerPool(2, device='tpu')", "ValueError", "'cpu' or 'cuda', not 'tpu'"),
        ("share(threading)", "TypeError", "the value is a module"),
        ("share([torch.ones(1), 3])", "TypeError", "entry 1 is a int"),
        ("pool.output(2)", "IndexError", "no rank 2 in a pool of 2"),
        ("pool.run(3)", "TypeError", "3 is none"),
    ],
)
def test_wrong_values(kernel: Kernel, call: str, kind: str, words: str) -> None:
    fails(kernel, call, kind, words)


def test_100_000_lines(kernel: Kernel) -> None:
    reply = kernel.run("""
def flood():
    for i in range(100_000): print("line", i)
_ = pool.run(flood)
""")
    assert reply.error is None
    assert 500 < reply.text.count("\n") < 1100
    assert "99,000 more lines of rank 0 are not shown here: pool.output(0) returns" in reply.text
    lines = "[len(pool.output(r).splitlines()) for r in range(2)]"
    assert kernel.value(lines) == [100_000, 100_000]
    assert (
        kernel.value("_ = pool.run(lambda: print('x' * 40_000_000)); len(pool.output(0))") < 2**25
    )


def test_progress_bar_lines_are_folded(kernel: Kernel) -> None:
    reply = kernel.run(r"""
def bar():
    for i in range(100): print(f"\r{i} %", end="")
    print("\rdone")
_ = pool.run(bar)
""")
    assert reply.text == "done\n"


def test_exit_inside_the_function(kernel: Kernel) -> None:
    pids = kernel.value("[r.pid for r in pool.status()]")
    words = "sys.exit(3) was called: return from the function instead"
    fails(kernel, "import sys\npool.run(lambda: sys.exit(3))", "WorkerError", words)
    assert kernel.value("[r.pid for r in pool.status()]") == pids
    fails(
        kernel,
        "pool.run(lambda: dist.get_rank() and os._exit(5))",
        "WorkerDied",
        "rank 1 ended its process (exit code 5)",
    )


def test_crash_in_compiled_code(kernel: Kernel) -> None:
    code = "import ctypes\npool.run(lambda: dist.get_rank() and ctypes.string_at(0))"
    fails(kernel, code, "WorkerDied", "rank 1 was killed (SIGSEGV): a crash in compiled code.")


def test_odd_exceptions(kernel: Kernel) -> None:
    fails(
        kernel,
        """
class Odd(Exception):
    def __init__(self, code, *, place):
        super().__init__(f"{code} at {place}")
def odd(): raise Odd(7, place="here")
pool.run(odd)
""",
        "WorkerError",
        "Odd: 7 at here",
    )
    fails(
        kernel,
        """
class Holding(Exception): pass
def hold():
    error = Holding("mine"); error.lock = threading.Lock()
    raise error
pool.run(hold)
""",
        "WorkerError",
        "Holding: mine",
    )
    reply = kernel.run("""
class Mine(Exception): pass
def cause():
    try: 1 / 0
    except ZeroDivisionError as error: raise Mine("text") from error
try: pool.run(cause)
except Mine as error: print("caught", error.__notes__[0])
""")
    assert reply.error is None and "caught" in reply.text
    assert "ZeroDivisionError: division by zero" in reply.text and "1 / 0" in reply.text


def test_pool_in_a_worker(kernel: Kernel) -> None:
    code = "pool.run(lambda: WorkerPool(2))"
    fails(kernel, code, "RuntimeError", "A worker cannot have workers of its own")


def test_run_in_a_run(kernel: Kernel, tmp_path: Path) -> None:
    end = tmp_path / "end"
    kernel.value(f"""
def last():
    here()
    while not os.path.exists({str(end)!r}): time.sleep(0.01)
thread = threading.Thread(target=lambda: out.extend(pool.run(last)))
out = []; thread.start()
""")
    kernel.meet(resting=False)
    fails(kernel, "pool.run(int)", "RuntimeError", "This pool is running a function")
    end.touch()
    kernel.value("thread.join()")
    assert kernel.value("out") == [None, None]


def test_interrupt_and_close_from_another_thread(kernel: Kernel) -> None:
    background = """
seen = []
def background():
    try: target.run(lambda: here() or time.sleep(600))
    except BaseException as error: seen.append((type(error).__name__, str(error)))
thread = threading.Thread(target=background); thread.start()
"""
    kernel.value("target = pool" + background)
    kernel.meet()
    kernel.value("target.interrupt(); thread.join()")
    assert kernel.value("seen")[0][0] == "KeyboardInterrupt"
    kernel.value("target = WorkerPool(1); target.run(int)" + background)
    kernel.meet(ranks=1)
    kernel.value("target.close(); thread.join()")
    assert kernel.value("seen") == [
        ("RuntimeError", "The pool was closed while it ran a function.")
    ]


def test_hang_is_explained(kernel: Kernel) -> None:
    kernel.begin("""
def hang():
    print("go")
    if dist.get_rank() == 1:
        the_line = dist.recv(torch.ones(1), src=0)
shy = WorkerPool(2, silence=2.0)
shy.run(lambda: dist.barrier())  # what is slow, once, is behind them
shy.run(hang)
""")
    # Where a rank on a busy machine does not say in time where it is, it is asked again.
    reply = kernel.end("the_line = dist.recv(torch.ones(1), src=0)", "stop button")
    assert "rank 1 silent for" in reply.text and "rank 0 silent" not in reply.text
    kernel.interrupt()
    reply = kernel.end()
    assert reply.error is not None and reply.error[0] == "KeyboardInterrupt"
    kernel.value("shy.close()")
