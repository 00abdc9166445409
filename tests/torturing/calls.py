# SPDX-License-Identifier: BSL-1.0
"""What strace wrote down of a life, and what was durable in it when a fact was told."""
import hashlib
import re

# "fsync(4</data/store>) = -1 EIO (Input/output error) (INJECTED)"; the last call of one that is killed has no result.
CALL = re.compile(r"(\w+)\((.*?)\)?\s+= (-?\w+|\?)(.*)")
HANDLE = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")
# The arguments of a sync_file_range that begins to write what is not written, and waits for all.
WHOLE_FILE = ", 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE|SYNC_FILE_RANGE_WRITE|SYNC_FILE_RANGE_WAIT_AFTER"
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Call:
    def __init__(self, at, line):
        self.at = at
        self.line = line
        matched = CALL.match(line)
        self.name, self.arguments, result, rest = matched.groups() if matched else (line.partition("(")[0], line, "?", "")
        self.done = not result.startswith("-")
        self.begun = result != "?"  # where it was not, the kill came before it
        self.result = int(result) if result.isdigit() else 0
        self.injected = "(INJECTED)" in rest

    def fact(self):
        """What is told, where this tells a fact."""
        if self.name != "write" or not self.begun or not self.path().endswith("/facts"):
            return None
        return self.texts()[0].removesuffix("\\n")

    def path(self):
        """Of its descriptor."""
        matched = HANDLE.match(self.arguments)
        return matched[2] if matched else ""

    def paths(self):
        return [path for _, path in HANDLE.findall(self.arguments)]

    def texts(self):
        return TEXT.findall(self.arguments)


def read_log(path, left_out):
    """Its calls but those of these names."""
    lines = path.read_text(errors="replace").splitlines()
    made = [line for line in lines if line.partition("(")[0] not in left_out and not line.startswith(("+++", "---"))]
    return [Call(at, line) for at, line in enumerate(made)]


class Failure(Exception):
    """Its text begins with its kind."""


class Order:
    """The store's directories as far as they are durable, by its calls alone.

    An entry of a directory is pending when it was made or taken away, synced after the next sync of that directory, and
    lost after one that failed: from then on nothing tells what the disk has, but another change of it and that one's sync.

    A syncfs that succeeds syncs all directories. What it tells of files it tells once, and perhaps to somebody else:
    they are unasked then, until each has told of itself. One that fails has synced nothing.
    """

    def __init__(self, store):
        self.store = str(store)
        self.parent, _, self.name = self.store.rpartition("/")
        self.entries = {}  # (directory, name): (is there, "pending", "synced" or "lost")
        self.bytes = {}  # file: "pending", "unasked", "synced" or "lost"
        self.generations = {}  # chunk id: [(dataset, name)], those that ever were in chunks/

    def follow(self, calls):
        for call in calls:
            fact = call.fact()
            if fact:
                kind, _, about = fact.partition(" ")
                {"ready": self.ready, "deleted": self.deleted}.get(kind, lambda about: None)(about)
            elif call.begun and call.name == "mkdir" and call.texts() == [self.store]:
                if call.done:
                    self.change("..", self.name, True)
            elif call.begun and call.name == "rmdir" and call.texts() == [self.store]:
                if call.done:
                    self.change("..", self.name, False)
            elif call.begun and call.name == "fsync" and call.path() == self.parent:
                self.sync("..", "synced" if call.done else "lost")
            elif call.begun and call.path().startswith(self.store):
                self.follow_one(call)

    def follow_one(self, call):
        at = call.path()[len(self.store):].lstrip("/")
        name = call.texts()[0] if call.texts() else ""
        if call.name == "fsync":
            self.sync(at, "synced" if call.done else "lost")
        elif call.name == "sync_file_range" and call.arguments.endswith(WHOLE_FILE):
            if not call.done:
                self.settle(at, "lost")
            elif self.bytes.get(at) == "unasked":
                self.settle(at, "synced")
        if not call.done:
            return
        if call.name == "syncfs":
            self.sync_all()
        if call.name in ("openat", "openat2") and "O_CREAT" in call.arguments:
            self.change(at, name, True)
            self.bytes[f"{at}/{name}".lstrip("/")] = "pending"
        elif call.name == "mkdirat":
            self.change(at, name, True)
        elif call.name in ("pwrite64", "ftruncate"):
            self.take(at)
            if self.bytes.get(at) != "lost":
                self.bytes[at] = "pending"
        elif call.name == "unlinkat":
            self.take(at)
            self.change(at, name, False)
            self.bytes.pop(f"{at}/{name}".lstrip("/"), None)
        elif call.name in ("renameat2", "renameat"):
            to = call.paths()[1][len(self.store):].lstrip("/")
            self.rename(at, name, to, call.texts()[1])

    def change(self, directory, name, there):
        self.entries[directory, name] = there, "pending"

    def settle(self, file, outcome):
        if self.bytes.get(file) in ("pending", "unasked"):
            self.bytes[file] = outcome

    def sync_all(self):
        for within in {within for within, _ in self.entries} - {".."}:
            self.sync_entries(within, "synced")
        for file, state in self.bytes.items():
            if state == "pending":
                self.bytes[file] = "unasked"

    def sync(self, at, outcome):
        self.settle(at, outcome)
        self.sync_entries(at, outcome)

    def sync_entries(self, at, outcome):
        for entry, (there, state) in self.entries.items():
            if entry[0] == at and state == "pending":
                self.entries[entry] = there, outcome

    def rename(self, directory, name, to, new_name):
        old, new = f"{directory}/{name}".lstrip("/"), f"{to}/{new_name}".lstrip("/")
        if directory == "":
            require(self.bytes.get(old, "synced") == "synced", f"{name} becomes {new_name}, and its bytes are not synced")
        if directory == "staging" and to != "staging":
            for file, state in self.bytes.items():
                require(state == "synced" or not file.startswith(old + "/"), f"{file} is published, and its bytes are {state}")
            for (within, entry), (_, state) in self.entries.items():
                require(state == "synced" or within != old, f"{old}/{entry} is published, and that it is there is {state}")
            self.generations.setdefault(chunk_of(new_name), []).append((to, new_name))
        self.bytes = {moved(file, old, new): state for file, state in self.bytes.items()}
        self.entries = {(moved(within, old, new), entry): state for (within, entry), state in self.entries.items()}
        self.change(directory, name, False)
        self.change(to, new_name, True)

    def take(self, at):
        """What is in the trash is not touched while a power cut may bring it back, and have it served."""
        area, _, name = at.partition("/")
        if area == "trash" and name:
            dataset, _, chunk = name.partition("/")[0].partition("-")
            self.require_gone(f"chunks/{dataset}", chunk, f"{at} is taken to pieces")

    def ready(self, title):
        for dataset, name in self.generations.get(identity(title.partition(".")[0]), [])[-1:]:
            what = f"{title} is ready"
            self.require_entry(dataset, name, True, what)
            self.require_entry("chunks", dataset.partition("/")[2], True, what)
            self.require_entry("", "chunks", True, what)
            self.require_entry("..", self.name, True, what)
            self.require_entry("doomed", marker(dataset, name), False, what)
            return
        raise Failure(f"unsynced: {title} is ready, and was never published")

    def deleted(self, chunk):
        for dataset, name in self.generations.get(identity(chunk), []):
            self.require_gone(dataset, name, f"{chunk} is deleted")

    def require_gone(self, dataset, name, what):
        """Or doomed."""
        if self.entries.get(("doomed", marker(dataset, name))) != (True, "synced"):
            self.require_entry(dataset, name, False, what)

    def require_entry(self, directory, name, there, what):
        """Where nothing was ever seen of it, it is not there."""
        is_there, state = self.entries.get((directory, name), (False, "synced"))
        require(is_there == there and state == "synced",
                f"{what}, and that {directory}/{name} is {'there' if is_there else 'gone'} is {state}")


def require(condition, text):
    if not condition:
        raise Failure(f"unsynced: {text}")


def identity(name):
    return hashlib.sha256(name.encode()).hexdigest()


def chunk_of(name):
    """Of "{begin}-{end}-{bytes}-{id}.{generation}"."""
    return name.rpartition("-")[2].partition(".")[0]


def marker(dataset, name):
    return f"{dataset.partition('/')[2]}-{name}"


def moved(path, old, new):
    return new + path[len(old):] if path == old or path.startswith(old + "/") else path
