"""Ranking the whole catalogue for many users: seconds and peak memory of `metrics.ranks`.

    python benchmarks/ranks.py [--users 1000000] [--items 100000] [--dim 64] [--share 1]

The scores of all users would take users x items x 4 bytes (400 GB by default); a block of them is in memory at a time.
--share ranks for that part of the users only, with the vectors and lists of all in memory. OMP_NUM_THREADS=1 for one
core.
"""

import argparse
import resource
import time

import numpy as np

from retrieval.common import csr
from retrieval.metrics import ranking

KNOWN = 30  # items that each user is known to have


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    queries = random.standard_normal((options.users, options.dim), dtype=np.float32)
    items = random.standard_normal((options.items, options.dim), dtype=np.float32)
    owners = np.arange(options.users)
    truth = csr.from_pairs(owners, random.integers(options.items, size=options.users), height=options.users)
    known = random.integers(options.items, size=options.users * KNOWN)
    seen = csr.from_pairs(np.repeat(owners, KNOWN), known, height=options.users)

    begin, cpu = time.perf_counter(), time.process_time()
    asked = max(round(options.users * options.share), 1)
    truth = truth.block(0, asked)
    ranks = ranking.ranks(queries[:asked], items, truth, seen.block(0, asked))
    taken, spent = time.perf_counter() - begin, time.process_time() - cpu
    # Random vectors know nothing: recall is k over the size of the catalogue.
    recall = float(ranking.recall(ranks, truth, k=options.items // 100).mean())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{asked:,} of {options.users:,} users x {options.items:,} items, {options.dim} dimensions: {taken:,.0f} s "
        f"({spent:,.0f} s of CPU, {asked / spent:,.0f} users a CPU second), peak {peak:.2f} GB, "
        f"recall@1% {recall:.4f}"
    )


if __name__ == "__main__":
    main()
