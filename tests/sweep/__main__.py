"""The sweep: ``python -m tests.sweep [TYPE …]`` examines every type that transformers knows, in two processes.

Prints a table by type and one last line with the counts; of all types, both and every finding go into ``out/sweep.*``.
The exit status says whether every map was captured and proved, every output identical and every model unchanged.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

PROCESSES = 2
LONGEST = 90.0  # seconds a type may take before its process is ended
OUT = Path("out")


def main(types: list[str]) -> int:
    """Examine the types given, or all of them."""
    from transformers import CONFIG_MAPPING
    from transformers import __version__ as version

    from tests.sweep.table import faults, last_line, lines

    start = time.perf_counter()
    rows = []
    for row in examined_in_processes(types or list(CONFIG_MAPPING.keys())):
        rows.append(row)
        print(f"\r{len(rows):4} {row['type']:40}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    text = [*lines(rows), f"transformers {version}: {last_line(rows, time.perf_counter() - start)}"]
    if not types:
        OUT.mkdir(exist_ok=True)
        (OUT / "sweep.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (OUT / "sweep.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    return int(any(faults(row) for row in rows))


def examined_in_processes(types: Iterable[str]) -> Iterator[dict[str, Any]]:
    """A row for each type; a type that ends its process, or takes too long, is told and the others go on."""
    waiting: Queue[str] = Queue()
    for key in types:
        waiting.put(key)
    done: Queue[dict[str, Any]] = Queue()
    count = waiting.qsize()
    for _ in range(PROCESSES):
        threading.Thread(target=_serve, args=(waiting, done), daemon=True).start()
    for _ in range(count):
        yield done.get()


def _serve(waiting: "Queue[str]", done: "Queue[dict[str, Any]]") -> None:
    worker: subprocess.Popen[str] | None = None
    while True:
        try:
            key = waiting.get_nowait()
        except Empty:
            break
        worker = worker or _worker()
        assert worker.stdin is not None
        assert worker.stdout is not None
        timer = threading.Timer(LONGEST, worker.kill)
        timer.start()
        try:
            worker.stdin.write(key + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except OSError:
            answer = ""
        timer.cancel()
        if answer:
            done.put(json.loads(answer))
        else:
            worker.kill()
            worker = None
            done.put(
                {"type": key, "stage": "ended", "reason": f"took longer than {LONGEST:.0f} s, or ended its process"}
            )
    if worker is not None and worker.stdin is not None:
        worker.stdin.close()


def _worker() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep", "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
    )  # fmt: skip


def work() -> None:
    """One process: a type a line in, a row a line out; what libraries print goes elsewhere."""
    import torch

    from tests.sweep.one import examined

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(examined(line.strip())), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    else:
        sys.exit(main(sys.argv[1:]))
