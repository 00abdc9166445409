# SPDX-License-Identifier: BSL-1.0
#
# Runs a program and says what it took: time, processor time, and the lines of "name value" that it wrote.
import dataclasses
import os
import subprocess
import sys
import time


@dataclasses.dataclass
class Taken:
    wall: float  # seconds, from before it is started until it has ended
    cpu: float  # user and system, of all its threads and children
    told: dict  # name: values

    def first(self, name):
        return self.told[name][0]


def run(command, **options):
    begin = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, **options)
    out, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    if process.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))}: exit {process.returncode}\n{out[-2000:]}{errors[-2000:]}")
    told = {}
    for line in out.splitlines():
        name, _, value = line.rpartition(" ")
        try:
            told.setdefault(name, []).append(float(value))
        except ValueError:
            pass  # not for us
    return Taken(wall, usage.ru_utime + usage.ru_stime, told)
