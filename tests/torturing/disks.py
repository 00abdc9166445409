# SPDX-License-Identifier: BSL-1.0
"""Real file systems on loop devices, whose power can be cut.

All mounts are in a mount namespace of their own: they go with the process, whatever ends it, and the loop devices with
them. What there is to mount lies in memory.
"""
import ctypes
import errno
import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
MNT_DETACH = 2
# XFS_IOC_GOINGDOWN, and ext4's: _IOR('X', 125, __u32). From then on nothing reaches the device, and every call is EIO.
SHUTDOWN = 0x8004587D
LOG_FLUSHED, LOG_LOST = 1, 2  # the journal of what was done so far comes to the disk yet, or does not

LIBC = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """What is missing here."""


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")


def need(*programs):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        raise Skip(f"{', '.join(missing)} is not installed; tests/setup test installs it")


def enter_namespace(place, size="4g"):
    """From here on this process, and what it starts, have mounts of their own. `place` becomes a disk in memory."""
    if os.geteuid() != 0:
        raise Skip("only root can mount")
    if LIBC.unshare(CLONE_NEWNS) != 0:
        raise Skip(f"no mount namespace of its own: {os.strerror(ctypes.get_errno())}")
    if LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise Skip(f"mounts cannot be made private: {os.strerror(ctypes.get_errno())}")
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "garner-torture", place)
    except OSError as problem:
        raise Skip(f"cannot mount: {problem}") from None


class Mounted:
    """Is mounted on `path` no longer than a `with`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unmount()


class Disk(Mounted):
    """A file system of `kind` on a file; where `beneath` is one too, on a file of that one.

    Cutting the power then loses what `kind` has written and not flushed, as a disk with a cache does; any file system can
    be cut like that. Without `beneath` the file system itself is told to write nothing more, which ext4 and xfs can.
    """

    SIZES = {"ext4": 160 << 20, "xfs": 320 << 20, "btrfs": 256 << 20}

    def __init__(self, place, kind, beneath=None):
        place.mkdir(parents=True)
        self.kind = kind
        self.beneath = Disk.on(place / "beneath", beneath, 640 << 20) if beneath else None
        self.image = (self.beneath.path if beneath else place) / "image"
        self.path = place / "mounted"
        self.path.mkdir()
        self.size = self.SIZES[kind]
        self.fd = None

    @classmethod
    def on(cls, place, kind, size):
        disk = cls(place, kind)
        disk.size = size
        return disk

    def title(self):
        return f"{self.kind} on {self.beneath.kind}" if self.beneath else self.kind

    def make(self):
        """Empty, and mounted."""
        self.unmount()
        if self.beneath:
            self.beneath.make()
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as image:
            image.truncate(self.size)
        run(f"mkfs.{self.kind}", "-q", *(["-F"] if self.kind == "ext4" else ["-f"]), self.image)
        if self.beneath:
            self.beneath.sync()
        self.mount_itself()

    def mount(self):
        if self.beneath:
            self.beneath.mount()
        self.mount_itself()

    def mount_itself(self):
        try:
            run("mount", "-t", self.kind, "-o", "loop", self.image, self.path)
        except OSError as problem:
            raise OSError(f"{self.title()}: {problem}") from None
        self.fd = os.open(self.path, os.O_RDONLY)

    def unmount(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
            deadline = time.monotonic() + 10
            while LIBC.umount2(str(self.path).encode(), 0) != 0:
                # A child that another thread has just forked holds our descriptors until it has executed its program.
                if ctypes.get_errno() != errno.EBUSY or time.monotonic() > deadline:
                    raise OSError(f"umount {self.path}: {os.strerror(ctypes.get_errno())}")
                time.sleep(0.005)
        if self.beneath:
            self.beneath.unmount()

    def write_by_pages(self):
        """A loop device takes a write that its file had room for in part for one that was done: no disk does that."""
        number = os.stat(self.path).st_dev
        limit = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/max_sectors_kb")
        limit.write_text("4")

    def sync(self):
        """As the kernel does by itself, in time."""
        LIBC.syncfs(self.fd)

    def cut(self, flags=LOG_LOST):
        if self.beneath:
            self.beneath.cut(flags)
        else:
            fcntl.ioctl(self.fd, SHUTDOWN, struct.pack("I", flags))


def after_power_cut(data_dir):
    """The machine was started anew since markers were made, as far as the store can tell."""
    boot = pathlib.Path(data_dir) / "doomed" / "boot"
    if boot.exists():
        text = boot.read_text()
        boot.write_text(text.translate(str.maketrans("0123456789abcdef", "123456789abcdef0")))


def main(given, campaign):
    """Runs `campaign` with a place for its disks, or says why it cannot."""
    try:
        need("mount", "mkfs.ext4")
        place = pathlib.Path(tempfile.mkdtemp(prefix="garner-torture-"))
        try:
            enter_namespace(place)
            campaign(given, place)
        finally:
            LIBC.umount2(str(place).encode(), MNT_DETACH)
            place.rmdir()
    except Skip as why:
        print(f"SKIPPED: {why}")
        sys.exit(77)


def check_support(kinds, place):
    """The kinds of which one can be made and mounted here, and why not of the others."""
    can, cannot = [], {}
    for kind in kinds:
        disk = Disk(place / f"try-{kind}", kind)
        try:
            disk.make()
            can.append(kind)
        except OSError as problem:
            cannot[kind] = str(problem)
        disk.unmount()
        disk.image.unlink(missing_ok=True)
    return can, cannot
