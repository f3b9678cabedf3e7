"""The cost of HTTP: requests over a socket and the same queries through the Retriever, in one run.

    python benchmarks/serve.py DIR [--seconds 2] [--write]

DIR is a bundle with users. Needs Linux: the CPU time of the server is read from /proc. The server and the clients are
separate processes that share the processors, so compare the CPU times. Rounds are interleaved; CPU times are medians
over rounds, latencies come from the round with the lowest median.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

DOCS: Final = Path(__file__).parents[1] / "docs" / "how-to" / "http.md"
BEGIN: Final = "<!-- measured by benchmarks/serve.py: begin -->"
END: Final = "<!-- measured by benchmarks/serve.py: end -->"
ROUNDS: Final = 5
USERS: Final = 400
HISTORY: Final = 50
K: Final = 10
BATCH: Final = 64


class Timed(NamedTuple):
    """Seconds of each call and of all calls, and CPU seconds of the answering process."""

    calls: list[float]
    whole: float
    cpu: float


def cpu_of(process: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sample_users(folder: Path) -> list[dict[str, Any]]:
    """Users of the data as new users: their features and their newest items."""
    from retrieval import Retriever
    from retrieval.catalog.record_store import RecordStore

    with Retriever.open(folder) as retriever:
        bundle, tower = retriever.bundle, retriever.user_tower
        history = bundle.schema.user.history
        assert history is not None
        users = bundle.load("users.lookup", RecordStore.open)
        records = [users.record(row) for row in range(min(USERS, len(users)))]
        names = {feature.name for feature in tower.inputs} - {history.name}
    return [
        {"features": {name: record.get(name) for name in names}, "history": record[history.name][-HISTORY:]}
        for record in records
    ]


def for_a_while(work: Callable[[int], object], seconds: float) -> tuple[list[float], float]:
    taken: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        work(len(taken))
        taken.append(time.perf_counter() - now)
    return taken, time.perf_counter() - began


def through_retriever(folder: Path, users: list[dict[str, Any]], *, batch: int, seconds: float) -> Timed:
    """The Retriever in this process, its hits turned to JSON as the server's are."""
    from retrieval import Retriever

    with Retriever.open(folder) as retriever:

        def work(turn: int) -> str:
            part = part_of(users, turn, batch)
            answers = [[hit.to_json() for hit in hits] for hits in retriever.query(part, k=K)]
            return json.dumps(answers, ensure_ascii=False, separators=(",", ":"))

        for turn in range(20):
            work(turn)
        before = time.process_time()
        calls, whole = for_a_while(work, seconds)
        return Timed(calls, whole, time.process_time() - before)


def part_of(users: list[dict[str, Any]], turn: int, batch: int) -> list[dict[str, Any]]:
    start = turn * batch % len(users)
    return (users[start:] + users[:start])[:batch]


def through_http(
    server: tuple[int, int], users: list[dict[str, Any]], *, batch: int, clients: int, seconds: float
) -> Timed:
    """Clients that send the next request when the last one is answered, over one connection each.

    server: its process id and port.
    """
    process, port = server
    bodies = [json.dumps({"users": part_of(users, turn, batch), "k": K}) for turn in range(max(1, len(users) // batch))]
    results: list[tuple[list[float], float]] = []
    all_warm = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def work(turn: int) -> None:
            connection.request("POST", "/v1/recommend", bodies[(turn + 37 * number) % len(bodies)])
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content[:200]

        for turn in range(5):
            work(turn)
        all_warm.wait()
        results.append(for_a_while(work, seconds))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    all_warm.wait()
    before = cpu_of(process)
    for thread in threads:
        thread.join()
    spent = cpu_of(process) - before
    return Timed([taken for calls, _ in results for taken in calls], max(whole for _, whole in results), spent)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """A server: its process id and port."""
    command = [sys.executable, "-m", "twotower", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://[^ ]*:(\d+) ", process.stderr.readline())
            assert found
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def in_a_process(work: Callable[..., Timed], *args: Any, **options: Any) -> Timed:
    """Run `work` in a process of its own, so that no interpreter lock is shared."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args, options)


def measure(folder: Path, seconds: float) -> list[list[str]]:
    users = sample_users(folder)
    with serving(folder) as server:
        cases: dict[tuple[str, int], Callable[[], Timed]] = {}
        for batch in (1, BATCH):
            cases["Retriever.query", batch] = partial(
                in_a_process, through_retriever, folder, users, batch=batch, seconds=seconds
            )
            for clients in (1, 8, 32):
                cases[f"HTTP, {clients} client{'s' * (clients > 1)}", batch] = partial(
                    in_a_process, through_http, server, users, batch=batch, clients=clients, seconds=seconds
                )
        rounds = [{case: work() for case, work in cases.items()} for _ in range(ROUNDS)]
    return [_row(case, [found[case] for found in rounds]) for case in cases]


def _row(case: tuple[str, int], rounds: list[Timed]) -> list[str]:
    name, batch = case
    cpu = statistics.median(found.cpu / (len(found.calls) * batch) for found in rounds)
    best = min(rounds, key=lambda found: statistics.median(found.calls))
    p50, p99 = statistics.median(best.calls), statistics.quantiles(best.calls, n=100)[98]
    rate = len(best.calls) * batch / best.whole
    return [name, str(batch), f"{cpu * 1e3:.2f}", f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}", f"{rate:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", default=Path("artifacts/demo"))
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one case in one round")
    parser.add_argument("--write", action="store_true", help="write the table to docs/how-to/http.md")
    args = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    header = ["case", "users per request", "CPU ms per user", "p50 ms", "p99 ms", "users/s"]
    lines = [header, ["---"] * 2 + ["---:"] * 4, *measure(args.folder, args.seconds)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if args.write:
        text = DOCS.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        DOCS.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
