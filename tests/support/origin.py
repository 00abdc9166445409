# SPDX-License-Identifier: BSL-1.0
#
# What the scripts that run the example worker share: a private nginx, the files of a manifest for it to serve, the
# worker itself, and a check of what lies in its data directory. nginx.hpp and origin_tree.hpp say the same in C++.
import hashlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data"
PATIENCE = 60  # seconds


def fail(text):
    sys.exit(f"FAILED: {text}")


def check(condition, text):
    if not condition:
        fail(text)


def wait_for(condition, what):
    """Asks again and again, and returns the first answer that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = condition()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"after {PATIENCE} s still not: {what}")
        time.sleep(0.001)


class Nginx:
    """Serves `root` on a free port of the loopback interface; each connection at `rate` bytes a second, 0: no limit.
    `workers` processes of it do so.

    It inherits the listening socket, so no other process can take the port in between.
    """

    def __init__(self, root, rate=0, workers=1):
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
        check(program, "nginx is not installed; tests/setup test installs it")
        self.prefix = tempfile.TemporaryDirectory(prefix="garner-test-nginx-")
        prefix = pathlib.Path(self.prefix.name)
        with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
            listener.setblocking(False)  # nginx leaves that as it is, and its workers would wait for each other's connections
            port = listener.getsockname()[1]
            head, sign, config = (HERE / "nginx.conf").read_text().partition("\nworker_processes")
            for name, value in {"PORT": port, "ROOT": root, "RATE": rate, "SENDFILE": "off" if rate else "on"}.items():
                config = config.replace(f"@{name}@", str(value))
            config = config.replace(" 1;", f" {workers};", 1)
            (prefix / "nginx.conf").write_text(head + sign + config)
            # Its worker would give up root for a user who may not read the test's directory.
            user = "user root;" if os.geteuid() == 0 else ""
            self.log = prefix / "error.log"
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [program, "-p", f"{prefix}/", "-c", "nginx.conf", "-e", "error.log", "-g", f"daemon off; {user}"],
                    pass_fds=[listener.fileno()],
                    env={**os.environ, "NGINX": f"{listener.fileno()};"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        self.origin = f"http://127.0.0.1:{port}"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                connection.sendall(b"GET /is-ready HTTP/1.0\r\n\r\n")
                ready = connection.recv(64).startswith(b"HTTP/1.1 204")
        except OSError:
            ready = False
        check(ready, f"nginx does not answer; it logged:\n{self.log.read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.process.terminate()
        self.process.wait()
        if kind:
            print(f"nginx logged:\n{self.log.read_text()}", file=sys.stderr)
        self.prefix.cleanup()


def read_manifest(name, begin, end):
    """The chunks of lines [begin, end)."""
    with (DATA / name).open() as lines:
        return [json.loads(line) for line in list(lines)[begin:end]]


def write_manifest(path, chunks):
    path.write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))


def file_of(root, source):
    return root / urllib.parse.urlsplit(source["urls"][0]).path.lstrip("/")


def serve(chunks, root, seed, max_size):
    """Writes the files of `chunks` below `root`, of 0 to `max_size` bytes; their sizes and digests, where they have
    any, become those."""
    for chunk in chunks:
        for source in chunk["files"].values():
            generator = random.Random(f"{seed} {source['urls'][0]}")
            data = generator.randbytes(generator.randint(0, max_size))
            file = file_of(root, source)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            if "size" in source:
                source["size"] = len(data)
            if "digest" in source:
                source["digest"] = "sha256:" + hashlib.sha256(data).hexdigest()


def id_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def worker_program():
    build = os.environ.get("GARNER_BUILD_DIR")
    check(build, "GARNER_BUILD_DIR is not set: it is the directory of a build, and has examples/worker in it")
    program = pathlib.Path(build) / "examples" / "worker"
    check(os.access(program, os.X_OK), f"{program} is not there: the examples are not built")
    return str(program)


def held(data_dir):
    """The directories of all published chunks by the chunk's id; fails where a name is not as the layout has it."""
    found = {}
    for dataset in (data_dir / "chunks").glob("*"):
        for directory in dataset.iterdir():
            chunk = directory.name.rpartition("-")[2].partition(".")[0]
            check(chunk not in found, f"two generations are there: {directory} and {found.get(chunk)}")
            found[chunk] = directory
    return found


def check_whole(directory, chunk, root):
    """Compares a published directory with what the origin serves, and its name with what is in it."""
    total = 0
    for name, source in chunk["files"].items():
        there, origin = directory / name, file_of(root, source)
        check(there.is_file() and there.read_bytes() == origin.read_bytes(), f"{there} is not as {origin}")
        total += origin.stat().st_size
    names = {entry.name for entry in directory.iterdir()}
    check(names == {*chunk["files"], "chunk.json"}, f"{directory} has {sorted(names)}")
    json.loads((directory / "chunk.json").read_bytes())
    begin, end = chunk["blocks"]
    expected = f"{begin:010}-{end:010}-{total:010}-{id_of(chunk['id'])}"
    check(directory.name.partition(".")[0] == expected, f"{directory} should be {expected}")
    check(directory.parent.name == id_of(chunk["dataset"]), f"{directory} is in the wrong dataset")


def check_converged(data_dir, chunks, root):
    """These chunks, whole, and nothing else."""
    found = held(data_dir)
    expected = {id_of(chunk["id"]): chunk for chunk in chunks}
    check(found.keys() == expected.keys(), f"{len(found)} chunks are held, not the {len(expected)} that are wanted")
    for chunk_id, directory in found.items():
        check_whole(directory, expected[chunk_id], root)
    for area in "staging", "trash":
        # What a killed worker did not fetch to its end, and nobody wants now, is kept for a while.
        left = [entry.name for entry in (data_dir / area).iterdir()
                if area != "staging" or entry.name.split(".")[0] in expected]
        check(not left, f"left in {area}/: {left}")
    # Markers stay until the machine was started anew; none may be of what is held.
    marked = {entry.name for entry in (data_dir / "doomed").iterdir()}
    held_names = {f"{directory.parent.name}-{directory.name}" for directory in found.values()}
    check(not marked & held_names, f"held and marked as deleted: {marked & held_names}")
    names = {entry.name for entry in data_dir.iterdir()}
    check(names == {"LOCK", "FORMAT", "chunks", "staging", "trash", "doomed", "quarantine"}, f"{data_dir} has {sorted(names)}")
