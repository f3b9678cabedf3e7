"""What a bundle survives: being killed at any moment, and any damage to its files.

Run as a program for the full counts: python -m tests.support.survival --kills 160 --exports 40 --mutations 2000
"""

import argparse
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.bundle.layout import CHECKSUMS
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.common.errors import TwoTowerError
from retrieval.index.build import build_index
from retrieval.index.storage import open_both
from retrieval.index.updates import add_items, compact, remove_items
from retrieval.retriever import Retriever
from retrieval.verify import verify_bundle
from tests.support.tiny import item_table, items_of, tiny_schema, tower_bytes, write_tiny

Random = np.random.Generator
ITEMS = 40
PUBLISHING_S = 0.2  # from when the last large file of an export is staged
OPERATIONS = ("build", "add", "remove", "compact", "export")


def in_child(
    work: Callable[[], Any], *, kill_after_s: float | None = None, counted_from: Callable[[], bool] = lambda: True
) -> Any:
    """Do something in a forked process: its result by way of JSON, or None if it was killed first.

    kill_after_s: from when `counted_from` says so, if it does before the process ends.
    The process that forks starts no threads of its own, so that its children may.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        code = 1
        try:
            with os.fdopen(write_end, "w") as pipe:
                pipe.write(json.dumps(work()))
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(write_end)
    if kill_after_s is not None:
        while not counted_from() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if kill_after_s is None and status != 0:
        raise AssertionError(f"a child ended with status {status}")
    return json.loads(text) if text else None


def state_of(folder: Path) -> dict[str, Any]:
    """Open, verify and ask a bundle: its pair and its items. Raises if anything is wrong."""
    lines = list(verify_bundle(folder))
    assert len(lines) == 3, lines
    with Retriever.open(folder) as retriever:
        hits = retriever.query([{"history": ["i1"]}], k=10_000, include_seen=True)[0]
        index, catalog = open_both(retriever.bundle)
        gone = set(index.removed.tolist())
        ids = [catalog.id(row) for row in range(catalog.height) if row not in gone]
        assert sorted(hit.id for hit in hits) == sorted(ids)
        return {"pair": retriever.pair_id, "ids": sorted(ids), "generation": retriever.bundle.generation}


def operate(folder: Path, name: str, step: int, pair_id: str) -> None:
    """One change; `step` makes it differ from the one before."""
    with publishing(folder) as draft:
        if name == "build":
            build_index(draft, kind=("flat", "IVF4,Flat")[step % 2])
        elif name == "add":
            source = folder.parent / "new.parquet"
            pq.write_table(items_of([f"i{100 + (step * 3 + offset) % 60}" for offset in range(5)]), source)
            add_items(draft, source)
        elif name == "remove":
            remove_items(draft, [f"i{100 + (step * 7 + offset) % 60}" for offset in range(9)])
        elif name == "compact":
            compact(draft)
        else:
            ids = [f"i{number}" for number in range(ITEMS)]
            table = item_table(ITEMS, 8, step)
            for side in ("user", "item"):
                draft.write_bytes(f"{side}_tower.onnx", tower_bytes(side, ids=ids, table=table, pair_id=pair_id))
            draft.write_json("schema.json", tiny_schema(8, pair_id).to_json())
            build_index(draft)


def expected_after(before: dict[str, Any], name: str, step: int, pair_id: str) -> dict[str, Any]:
    ids = set(before["ids"])
    if name == "add":
        ids |= {f"i{100 + (step * 3 + offset) % 60}" for offset in range(5)}
    elif name == "remove":
        ids -= {f"i{100 + (step * 7 + offset) % 60}" for offset in range(9)}
    pair = pair_id if name == "export" else before["pair"]
    return {"pair": pair, "ids": sorted(ids), "generation": before["generation"] + 1}


def survive_kills(space: Path, *, count: int, seed: int = 0) -> dict[str, int]:
    """Kill changes at random moments; after each the bundle must hold all of the change or none of it.

    Returns how often which. Raises AssertionError at the first bundle that is neither.
    """
    random = np.random.default_rng(seed)
    folder = space / "bundle"
    in_child(lambda: str(write_tiny(folder, items=ITEMS)))
    before = in_child(lambda: state_of(folder))
    took = dict.fromkeys(OPERATIONS, 0.0)
    outcomes = {"all": 0, "none": 0}
    for step in range(count):
        name = OPERATIONS[step % len(OPERATIONS)]
        pair_id = f"{step:012x}"
        after = expected_after(before, name, step, pair_id)
        change = functools.partial(operate, name=name, step=step, pair_id=pair_id)
        if not took[name]:
            shutil.copytree(folder, space / "copy")
            started = time.perf_counter()
            in_child(functools.partial(change, space / "copy"))
            took[name] = time.perf_counter() - started
            shutil.rmtree(space / "copy")
        in_child(functools.partial(change, folder), kill_after_s=random.uniform(0, 1.3 * took[name]))
        found = in_child(lambda: state_of(folder))
        assert found in (before, after), f"step {step}, {name}: {found} is neither {before} nor {after}"
        outcomes["none" if found == before else "all"] += 1
        before = found
    return outcomes


def survive_export_kills(space: Path, *, count: int, seed: int = 0) -> dict[str, int]:
    """As `survive_kills`, for `twotower export` of a real training, in one precision and then the other.

    The bundle holds an index, which goes with the towers it was made for. Every other kill comes at any moment of the
    export, the others while it publishes, which is the last hundredth of it.
    """
    import export.export_towers  # noqa: F401 - here, so that no child loads torch anew
    import train.loop.checkpoint  # noqa: F401
    import twotower

    def plant() -> str:  # with polars, whose threads must not be here when this process forks
        from tests.support.planted import write_planted

        return str(write_planted(space, encoder="mean"))  # the graph that is exported soonest

    random = np.random.default_rng(seed)
    folder = space / "trained"
    config = in_child(plant)
    quick = ["--set", "train.epochs=1", "--set", "model.dim=16"]
    in_child(functools.partial(command, twotower.main, "train", config, "--out", folder, *quick))

    def towers(precision: str, folder: Path) -> None:
        command(twotower.main, "export", folder, "--precision", precision, "--allow-loss")

    def with_index(folder: Path) -> None:
        command(twotower.main, "index", "build", folder)

    def is_staged() -> bool:
        return any(folder.glob(".next-*/items.parquet"))

    started = time.perf_counter()
    in_child(functools.partial(towers, "fp32", folder))
    took = time.perf_counter() - started
    whole = {"fp32": files_of(folder)}  # what an export in that precision publishes
    outcomes = {"all": 0, "none": 0}
    present = "fp32"
    for step in range(count):
        in_child(functools.partial(with_index, folder))
        before = files_of(folder)
        wanted = "fp16" if present == "fp32" else "fp32"
        change = functools.partial(towers, wanted, folder)
        if step % 2:
            in_child(change, kill_after_s=random.uniform(0, 1.3 * took))
        else:
            in_child(change, kill_after_s=random.uniform(0, PUBLISHING_S), counted_from=is_staged)
        list(verify_bundle(folder))
        found = files_of(folder)
        if found != before and wanted not in whole:
            in_child(change)
            whole[wanted] = files_of(folder)
        is_whole = found in (before, whole.get(wanted))
        assert is_whole, f"step {step}, export: {sorted(found)} is neither all nor nothing"
        outcomes["none" if found == before else "all"] += 1
        present = present if found == before else wanted
    return outcomes


def command(main: Callable[[list[str]], Any], *args: object) -> None:
    """Run a command of the command line, which must succeed."""
    code: Any = None
    try:
        main(["--quiet", *map(str, args)])
    except SystemExit as ended:
        code = ended.code
    assert not code, f"{args} ended with {code}"


def files_of(folder: Path) -> dict[str, str]:
    """The files of a bundle by their checksums, which are compared with what is there."""
    with Bundle.open(folder, verify="full") as bundle:
        for name in bundle.names:
            bundle.file(name)
        return {name: entry.sha256 for name, entry in bundle.manifest.files.items()}


def flip_bit(content: bytearray, random: Random) -> None:
    content[random.integers(len(content))] ^= 1 << int(random.integers(8))


def cut(content: bytearray, random: Random) -> None:
    del content[random.integers(len(content)) :]


def lie_about_length(content: bytearray, random: Random) -> None:
    """A large number where a length may stand."""
    width = int(random.choice([4, 8]))
    at = int(random.integers(max(1, min(len(content), 256) - width)))
    number = int(random.choice([2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 10**9])) % 256**width
    content[at : at + width] = number.to_bytes(width, "little")


def blank(content: bytearray, random: Random) -> None:
    at = int(random.integers(len(content)))
    width = int(random.integers(1, 64))
    content[at : at + width] = bytes(len(content[at : at + width]))


def lengthen(content: bytearray, random: Random) -> None:
    content += random.bytes(int(random.integers(1, 100)))


CHANGES: tuple[Callable[[bytearray, Random], None], ...] = (flip_bit, cut, lie_about_length, blank, lengthen)


def mutate(folder: Path, other: Path, names: list[str], random: Random) -> tuple[set[str], str]:
    """Damage one file, or swap two. Returns the names that an error may name, and what was done."""
    name = str(random.choice(names))
    place = folder / name
    choice = int(random.integers(len(CHANGES) + 3))
    if choice < len(CHANGES):
        content = bytearray(place.read_bytes())
        CHANGES[choice](content, random)
        place.write_bytes(content)
        return {name}, f"{CHANGES[choice].__name__} {name}"
    if choice == len(CHANGES):
        place.unlink()
        return {name, str(folder)}, f"removed {name}"
    if choice == len(CHANGES) + 1:
        shutil.copy(other / name, place)
        return ({*names, str(folder)} if name == "manifest.json" else {name}), f"{name} of another bundle"
    second = str(random.choice([own for own in names if own != name]))
    held = place.read_bytes()
    shutil.copy(folder / second, place)
    (folder / second).write_bytes(held)
    return {name, second}, f"swapped {name} and {second}"


def refusal(work: Callable[[], Any]) -> str | None:
    """The message of a refusal, or None if there was none. Any other exception goes on."""
    try:
        work()
    except TwoTowerError as error:
        return str(error)
    return None


def survive_mutations(space: Path, *, count: int, seed: int = 0) -> int:
    """Damage a bundle in many ways: `verify` must name the file each time, a query name it or answer as before.

    Returns how many queries were refused. Raises AssertionError at the first that is not so.
    """
    random = np.random.default_rng(seed)
    whole, other, folder = space / "whole", space / "other", space / "damaged"
    write_tiny(whole, items=ITEMS, kind="IVF4,Flat")
    with publishing(whole) as draft:
        source = space / "new.parquet"
        pq.write_table(items_of(["i3", "i50"]), source)
        add_items(draft, source)
    write_tiny(other, items=ITEMS, seed=1, pair_id="def456def456", kind="IVF4,Flat")
    with publishing(other) as draft:
        add_items(draft, source)
    with Bundle.open(whole) as bundle:
        names = sorted([*bundle.names, "manifest.json"])

    def ask() -> list[list[tuple[str, float]]]:
        with Retriever.open(folder) as retriever:
            asked: list[dict[str, Any]] = [{"user": "u1"}, {"history": ["i2", "i50"]}]
            found = retriever.query(asked, k=5) + retriever.query(asked, k=5, where="'odd' IN tags OR year > 2000")
            return [[(hit.id, hit.score, *sorted(map(str, hit.item.items()))) for hit in hits] for hits in found]  # type: ignore[misc]

    shutil.copytree(whole, folder)
    right = ask()
    refused = 0
    for step in range(count):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        (folder / CHECKSUMS).unlink(missing_ok=True)
        original = {name: (folder / name).read_bytes() for name in names}
        allowed, done = mutate(folder, other, names, random)
        if all((folder / name).exists() and (folder / name).read_bytes() == original[name] for name in names):
            continue  # what was written is what was there
        for message in (refusal(lambda: list(verify_bundle(folder))), refusal(ask)):
            if message is not None:
                assert any(name in message for name in allowed), f"step {step}, {done}: {message}"
                assert "\n" not in message
        assert refusal(lambda: list(verify_bundle(folder))) is not None, f"step {step}, {done}: verified"
        if refusal(ask) is None:
            assert ask() == right, f"step {step}, {done}: another answer"
        else:
            refused += 1
    return refused


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--exports", type=int, default=0)
    parser.add_argument("--mutations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as name:
        if args.kills:
            print(f"{args.kills} kills survived:", survive_kills(Path(name), count=args.kills, seed=args.seed))
        if args.exports:
            done = survive_export_kills(Path(name), count=args.exports, seed=args.seed)
            print(f"{args.exports} kills of an export survived:", done)
        if args.mutations:
            refused = survive_mutations(Path(name), count=args.mutations, seed=args.seed)
            print(f"{args.mutations} mutations survived; a query was refused in {refused}, right in the others")


if __name__ == "__main__":
    main()
