# SPDX-License-Identifier: BSL-1.0
#
# The tables of lookups and of calls, which use neither disk nor network: what bench_lookups and bench_calls tell.
import processes
from rows import Row, Samples


def measure_lookups(programs, rounds, quick, say):
    sizes = (5_243, 100_000) if quick else (5_243, 100_000, 1_000_000)
    samples, rows = Samples(), []
    for chunks in sizes:
        say(f"lookups among {chunks:,} chunks")
        for name, values in processes.run([programs / "bench_lookups", chunks, rounds]).told.items():
            samples.of[f"{chunks} {name}"] = values
        rows += [
            Row(f"{chunks:,} chunks: 1 thread / floor", f"{chunks} garner 1", f"{chunks} floor", "<=", 1.0, "ns"),
            Row(f"{chunks:,} chunks: 4 threads / 1 thread", f"{chunks} garner 4", f"{chunks} garner 1", "<=", 1.3, "ns"),
            Row(f"{chunks:,} chunks: 16 threads / 1 thread", f"{chunks} garner 16", f"{chunks} garner 1", "<=", 1.3, "ns"),
            Row(f"{chunks:,} chunks: 4 threads, with the writer / without", f"{chunks} garner 4", f"{chunks} quiet 4", "<=",
                1.3, "ns"),
            Row(f"{chunks:,} chunks: one hot chunk / spread, 4 threads", f"{chunks} hot 4", f"{chunks} quiet 4", "<=", 1.5,
                "ns"),
            Row(f"{chunks:,} chunks: one hot chunk / spread, 16 threads", f"{chunks} hot 16", f"{chunks} quiet 16", "<=", 1.5,
                "ns"),
            Row(f"{chunks:,} chunks: mutex + hash by id / garner, 4 threads", f"{chunks} hash 4 wall",
                f"{chunks} garner 4 wall", ">=", 50, "ns"),
            Row(f"{chunks:,} chunks: scan under a lock / garner, 4 threads", f"{chunks} scan 4 wall",
                f"{chunks} garner 4 wall", ">=", 300, "ns"),
        ]
    rows.append(Row(f"one change: {sizes[-1]:,} chunks / {sizes[0]:,}", f"{sizes[-1]} change", f"{sizes[0]} change", "<=", 2,
                    "ns"))
    return samples, rows


def measure_calls(programs, directory, rounds, quick, say):
    samples = Samples()
    seconds = 2 if quick else 10
    chunks = 100_000 if quick else 1_000_000
    for turn in range(rounds):
        say(f"round {turn + 1}: calls")
        told = processes.run([programs / "bench_calls", directory / "idle", chunks, seconds]).told
        for name, values in told.items():
            samples.add(name, values[0])
    rows = []
    for call in ("download", "delete"):
        rows += [
            Row(f"{call}_chunk in a storm: p99.9 / p50", f"garner {call} p99.9", f"garner {call} p50", "<=", 50, "ns"),
            Row(f"{call}_chunk in a storm: p50 / mutex + unordered_map", f"garner {call} p50", f"bare {call} p50", "<=", 5,
                "ns"),
        ]
    return samples, rows + [
        Row("lookups' p99 in the storm / at rest", "lookup in storm p99", "lookup at rest p99", "<=", 2, "ns"),
        Row("lookups' p99 in a storm over ten chunks / at rest", "lookup in storm of ten p99", "lookup at rest p99", "<=", 2,
            "ns"),
        Row("download_chunk in a storm over ten chunks: p99.9 / p50", "garner ten download p99.9", "garner ten download p50",
            "<=", 50, "ns"),
        Row(f"set_assignment of {chunks:,} / a sorted vector, a chunk", "assignment", "sorted vector", "<=", 5, "ns"),
        Row(f"context switches of an idle manager in {seconds} s", "idle switches", None, "<=", 0, ""),
    ]
