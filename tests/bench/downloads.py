# SPDX-License-Identifier: BSL-1.0
#
# The download tables: garner, the floor and the usual tools fetch the same files from the same nginx onto the same disk,
# one after the other, again and again.
import os
import pathlib
import re
import shutil
import sys

import disk
import processes
from rows import Row, Samples

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import origin  # noqa: E402

MIB = 1 << 20
# name: chunks, files of each, bytes of each file; and the same for --quick
WORKS = {
    "A": ((20, 5, 8_000_000), (4, 5, 8_000_000)),
    "B": ((500, 4, 16 * 1024), (100, 4, 16 * 1024)),
    "C": ((4, 1, 512 * MIB), (2, 1, 64 * MIB)),
}

ROWS = [
    Row("A: relaxed / floor", "A relaxed", "A floor", "<=", 1.25),
    Row("A: curl --parallel / relaxed", "A curl", "A relaxed", ">=", 3.5),
    Row("A: aria2c / relaxed", "A aria2c", "A relaxed", ">=", 7),
    Row("A: CPU of relaxed / CPU of curl --parallel", "A relaxed cpu", "A curl cpu", "<=", 0.5),
    Row("A: durable / four syncing threads", "A durable", "A syncing", "<=", 0.8),
    Row("A: durable / relaxed", "A durable", "A relaxed", "<=", 1.4),
    Row("B: relaxed / floor", "B relaxed", "B floor", "<=", 1.5),
    Row("B: curl --parallel / relaxed", "B curl", "B relaxed", ">=", 1.5),
    Row("B: four syncing threads / durable", "B syncing", "B durable", ">=", 2),
    Row("B: durable / relaxed", "B durable", "B relaxed", "<=", 1.4),
    Row("B: durable / curl --parallel, which does not sync", "B durable", "B curl", "<=", 1.0),
    Row("C: relaxed / floor", "C relaxed", "C floor", "<=", 1.4),
    Row("C: curl --parallel / relaxed", "C curl", "C relaxed", ">=", 2.8),
    Row("A: peak memory of durable above an idle manager", "A durable memory", None, "<=", 32 * MIB, "bytes"),
    Row("C: peak memory of durable above an idle manager", "C durable memory", None, "<=", 32 * MIB, "bytes"),
    Row("peak memory of C / of A, whole processes", "C durable peak", "A durable peak", "<=", 1.2, "bytes"),
    Row("A: CPU of XXH3-128 / CPU of relaxed", "A digest cpu", "A relaxed cpu", "<=", 0.1),
    Row("A: system calls a megabyte, relaxed", "A relaxed calls", None, "<=", 15, ""),
    Row("A: system calls a megabyte, durable", "A durable calls", None, "<=", 15, ""),
]


class Work:
    """The files of one work, as the server has them, and the lists by which the contenders know them."""

    def __init__(self, name, shape, root, server):
        chunks, files, size = shape
        self.name, self.server = name, server
        self.bytes = chunks * files * size
        self.paths = [f"{name}/{chunk:03}/file{file}" for chunk in range(chunks) for file in range(files)]
        self.list = root / f"{name}.list"
        self.list.write_text("".join(f"{path} {size}\n" for path in self.paths))
        # Not compressible, and not the same in two places of one file.
        block = os.urandom(min(size, 8 * MIB))
        for path in self.paths:
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                for at in range(0, size, len(block)):
                    out.write(block[: size - at])


class Downloads:
    def __init__(self, programs, directory, works):
        self.programs, self.directory, self.works = programs, directory, works
        self.target = directory / "target"

    def command(self, contender, work):
        port = work.server.rpartition(":")[2]
        urls = [(f"{work.server}/{path}", path) for path in work.paths]
        if contender == "floor":
            return [self.programs / "bench_floor", port, work.list, self.target]
        if contender == "syncing":
            return [self.programs / "bench_floor", port, work.list, self.target, "--sync"]
        if contender in ("relaxed", "durable", "idle"):
            return [self.programs / "bench_fetch", port, work.list, self.target, contender]
        if contender == "curl":
            # 50 at once, its default, is slower here than 8.
            config = self.directory / f"{work.name}.curl"
            config.write_text("".join(f'url = "{url}"\noutput = "{self.target}/{path}"\n' for url, path in urls))
            return ["curl", "--no-progress-meter", "--fail", "--create-dirs", "--parallel", "--parallel-immediate",
                    "--parallel-max", "8", "--config", config]
        assert contender == "aria2c"
        config = self.directory / f"{work.name}.aria2c"
        config.write_text("".join(f"{url}\n out={path}\n" for url, path in urls))
        # Its own caches and reports are off; one connection a file, as the others have.
        return ["aria2c", "--quiet", "--no-conf", f"--input-file={config}", f"--dir={self.target}",
                "--max-concurrent-downloads=8", "--max-connection-per-server=8", "--split=1", "--file-allocation=none",
                "--disk-cache=64M", "--summary-interval=0"]

    def clear(self):
        """Also what the disk still does for whoever was before."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()
        file = os.open(self.directory, os.O_RDONLY)
        disk.syncfs(file)
        os.close(file)

    def fetch(self, contender, work):
        self.clear()
        taken = processes.run(self.command(contender, work))
        if contender != "idle":
            sizes = sum(file.stat().st_size for file in self.target.rglob("file*"))
            if sizes != work.bytes:
                sys.exit(f"FAILED: {contender} has fetched {sizes} bytes of {work.bytes} on work {work.name}")
        return taken

    def count_calls(self, contender, work):
        self.clear()
        report = self.directory / "strace"
        processes.run(["strace", "-f", "-c", "-o", report, *self.command(contender, work)])
        total = re.search(r"^\s*100\.00\s.*?\s(\d+)\s+(?:\d+\s+)?total$", report.read_text(), re.MULTILINE)
        return int(total.group(1)) / (work.bytes / 1e6)

    def measure(self, rounds, samples, say):
        if "A" in self.works:
            idle = sorted(self.fetch("idle", self.works["A"]).first("peak") for _ in range(3))[1]
            samples.of["idle peak"] = [idle]
        for turn in range(rounds):
            for name, work in self.works.items():
                for contender in ("floor", "relaxed", "curl", "syncing", "durable", *(["aria2c"] if name == "A" else [])):
                    taken = self.fetch(contender, work)
                    say(f"round {turn + 1}: {name} {contender}: {taken.wall:.3f} s, CPU {taken.cpu:.3f} s")
                    samples.add(f"{name} {contender}", taken.wall)
                    samples.add(f"{name} {contender} cpu", taken.cpu)
                    if contender == "durable":
                        samples.add(f"{name} durable peak", taken.first("peak"))
                        if name != "B":
                            samples.add(f"{name} durable memory", taken.first("peak") - samples.of["idle peak"][0])
            if "A" in self.works:
                digest = processes.run([self.programs / "bench_digest"]).first("digest")
                samples.add("A digest cpu", digest * self.works["A"].bytes / 1e9)
        if "A" in self.works:
            for contender in ("relaxed", "durable"):
                samples.add(f"A {contender} calls", self.count_calls(contender, self.works["A"]))


def measure(programs, directory, rounds, quick, say):
    """Many small files need a file system that makes and deletes them at an even pace (disk.py). A few large ones need the
    disk itself: a file system in a file would be slower at syncs than what it stands for."""
    samples = Samples()
    for names, journal in (("AC", False), ("B", True)):
        with disk.prepared(directory, say, journal) as place:
            root = place / "origin"
            root.mkdir()
            with origin.Nginx(root, workers=2) as server:
                say(f"making the files of {' and '.join(names)}")
                works = {name: Work(name, WORKS[name][1 if quick else 0], root, server.origin) for name in names}
                Downloads(programs, place, works).measure(rounds, samples, say)
    return samples, ROWS
