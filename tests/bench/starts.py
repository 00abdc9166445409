# SPDX-License-Identifier: BSL-1.0
#
# The table of starts, removals and memory: directories are made, opened with a warm and with a cold cache, and emptied,
# beside find(1) and rm(1) on the same.
import os
import pathlib
import re
import shutil
import sys

import processes
from rows import Row, Samples

CHUNKS = 5_243


def rows(most):
    out = []
    for chunks in (CHUNKS, most):
        out.append(Row(f"{chunks:,} chunks, warm: ready / find", f"{chunks} warm start", f"{chunks} warm find", "<=", 1.5))
        out.append(Row(f"{chunks:,} chunks, cold: ready / find", f"{chunks} cold start", f"{chunks} cold find", "<=", 1.2))
    return out + [
        Row(f"{most:,} chunks: files opened and looked at, a chunk", "calls", None, "<=", 0.01, ""),
        # Before the scan of the other seven datasets ends.
        Row(f"{most:,} chunks, in the background: first lookup / all known", "first lookup", "all known", "<=", 0.5),
        Row("removal of 1,000 chunks, durable / rm -rf and sync", "removed", "rm", "<=", 1.5),
        Row("lookups' p99 while 200 MB are removed / at rest", "lookup in removal p99", "lookup at rest p99", "<=", 1.25, "ns"),
        Row(f"{most:,} chunks found by a start: bytes of memory each", "bytes a chunk found", None, "<=", 256, "bytes"),
        Row("chunks of five files that were fetched: bytes of memory each", "bytes a chunk fetched", None, "<=", 256, "bytes"),
    ]


def drop_caches():
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def measure_start(programs, store, chunks, rounds, samples, say):
    def find():
        return processes.run(["find", store, "-maxdepth", "3", "-name", "nothing"]).wall

    say(f"making a store of {chunks:,} chunks")
    processes.run([programs / "bench_start", "names", store, chunks])
    for turn in range(rounds):
        for cache in ("warm", "cold"):
            if cache == "cold" and not drop_caches():
                say("only root can drop the caches: no cold starts")
                continue
            found = find()
            if cache == "cold":
                drop_caches()
            started = processes.run([programs / "bench_start", "start", store])
            samples.add(f"{chunks} {cache} find", found)
            samples.add(f"{chunks} {cache} start", started.first("all listed"))
            say(f"round {turn + 1}: {chunks:,} {cache}: {started.first('all listed'):.3f} s, find {found:.3f} s")
        find()
    for turn in range(rounds):
        started_behind = processes.run([programs / "bench_start", "background", store])
        for name in ("first lookup", "all known"):
            if turn == 0:
                samples.of[name] = []  # of the greater store
            samples.add(name, started_behind.first(name))
    samples.of["bytes a chunk found"] = [started.first("bytes a chunk")]


def count_calls(programs, store, chunks, report):
    processes.run(["strace", "-f", "-c", "-o", report, programs / "bench_start", "start", store])
    calls = re.findall(r"(\d+)(?:\s+\d+)?\s+(open|openat|openat2|stat|lstat|fstat|newfstatat|statx)$", report.read_text(),
                       re.MULTILINE)
    report.unlink()
    return sum(int(count) for count, _ in calls) / chunks


def measure(programs, directory, rounds, quick, say):
    samples = Samples()
    most = 100_000 if quick else 1_000_000
    store, start = directory / "store", programs / "bench_start"
    for chunks in (CHUNKS, most):
        measure_start(programs, store, chunks, rounds, samples, say)
        if chunks == most:
            samples.of["calls"] = [count_calls(programs, store, chunks, directory / "strace")]
        shutil.rmtree(store)
    for turn in range(rounds):
        say(f"round {turn + 1}: removals")
        processes.run([start, "fill", store, 1000, 16 * 1024])
        shutil.copytree(store, directory / "copy")
        os.sync()
        samples.add("removed", processes.run([start, "remove", store]).first("removed"))
        samples.add("rm", processes.run(["sh", "-c", f"rm -rf '{directory}/copy/chunks'; sync -f '{directory}'"]).wall)
        shutil.rmtree(store)
        shutil.rmtree(directory / "copy")
        processes.run([start, "fill_large", store])
        for name, values in processes.run([start, "remove_large", store]).told.items():
            samples.add(name, values[0])
        shutil.rmtree(store)
    samples.of["bytes a chunk fetched"] = [processes.run([start, "memory", 5_000]).first("bytes a chunk")]
    return samples, rows(most)
