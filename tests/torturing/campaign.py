# SPDX-License-Identifier: BSL-1.0
"""What the campaigns share whose runs have no end: their options, their last words, and the program hoard.cpp."""
import argparse
import json
import os
import pathlib
import random
import select
import subprocess
import sys
import time

PATIENCE = 60  # seconds


def read_options(about):
    parser = argparse.ArgumentParser(description=about)
    build = os.environ.get("GARNER_BUILD_DIR")
    parser.add_argument("--program-dir", type=pathlib.Path, default=build and pathlib.Path(build) / "tests",
                        help="where the tests' programs are; by default $GARNER_BUILD_DIR/tests")
    parser.add_argument("--minutes", type=float, help="go on for so long; by default a short run of everything")
    parser.add_argument("--slice", metavar="K/N", help="a short run of everything, with seed K")
    parser.add_argument("--seed", type=int, default=1, help="decides what happens; the moment is also the machine's")
    given = parser.parse_args()
    if not given.program_dir:
        parser.error("--program-dir, or $GARNER_BUILD_DIR")
    if given.slice:
        given.seed = int(given.slice.partition("/")[0])
    begun = time.monotonic()
    given.long = lambda: given.minutes is not None and time.monotonic() < begun + 60 * given.minutes
    return given


def finish(counts, failures):
    for failure in failures[:20]:
        print(f"FAILED {failure}")
    print(json.dumps(counts))
    sys.exit(1 if failures else 0)


class Failure(Exception):
    pass


class Hoard:
    """One life of the program."""

    def __init__(self, program_dir, data_dir, *options, preexec_fn=None):
        program = program_dir / "torture_hoard"
        self.process = subprocess.Popen([str(program), "--data-dir", str(data_dir), *map(str, options)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=preexec_fn)
        self.out = self.process.stdout.fileno()
        os.set_blocking(self.out, False)
        self.rest = b""  # of a line
        self.early = []  # lines
        self.ended = False

    def lines(self, timeout):
        """Those that come before this many seconds have passed; at once where there are some."""
        if self.early:
            early, self.early = self.early, []
            return early
        if self.ended or not select.select([self.out], [], [], max(0, timeout))[0]:
            return []
        part = os.read(self.out, 1 << 16)
        self.ended = not part
        *whole, self.rest = (self.rest + part).split(b"\n")
        return [line.decode() for line in whole]

    def last_lines(self):
        """What it wrote before its end."""
        out, self.early = self.early, []
        while not self.ended:
            out += self.lines(PATIENCE)
        return out

    def until(self, last, timeout=PATIENCE):
        """All lines up to the one that is `last`, without it."""
        out, deadline = [], time.monotonic() + timeout
        while last not in out:
            out += self.lines(deadline - time.monotonic())
            if self.ended or time.monotonic() > deadline:
                raise Failure(f"'{last}' did not come; the last lines: {out[-5:]}")
        self.early = out[out.index(last) + 1:]
        return out[:out.index(last)]

    def ask(self, command, timeout=PATIENCE):
        """The lines that answer it, and what else was told meanwhile."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.until(".", timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def close(self):
        """Returns the last lines of one that was asked to end and has."""
        self.process.stdin.close()
        out = self.last_lines()
        if self.process.wait(PATIENCE) != 0:
            raise Failure(f"it ended with {self.process.returncode}")
        return out


def generator(*seed):
    return random.Random(" ".join(map(str, seed)))
