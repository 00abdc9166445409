# SPDX-License-Identifier: BSL-1.0
#
# Where the benchmarks write: a directory of a real disk. An ext4 without a journal looks at all inodes that were deleted
# during the last minutes before it makes a file, and what one contender has deleted would slow the next one down tenfold;
# there a file system with a journal is made in a file of that disk, and mounted for this process and its children alone.
import contextlib
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "torturing"))
import disks  # noqa: E402

GIB = 1 << 30


def mount_of(path):
    """The source and the type of the file system that `path` is on."""
    path = path.resolve()
    best = ("", "", "")
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        source, place, kind = line.split()[:3]
        if path.is_relative_to(place) and len(place) >= len(best[1]):
            best = (source, place, kind)
    return best[0], best[2]


def lacks_journal(path):
    source, kind = mount_of(path)
    name = pathlib.Path(source).name
    return kind == "ext4" and not any(pathlib.Path("/proc/fs/jbd2").glob(f"{name}-*"))


def syncfs(file):
    if disks.LIBC.syncfs(file) != 0:
        sys.exit("FAILED: syncfs")


@contextlib.contextmanager
def prepared(directory, say, journal=True):
    """An empty directory to write into, which is gone afterwards. Where `journal` is false it need not have one."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        source, kind = mount_of(directory)
        say(f"{directory} is on {source}, {kind}")
        if kind in ("tmpfs", "ramfs"):
            sys.exit("FAILED: that is no disk; --dir names another directory")
        if not journal or not lacks_journal(directory):
            yield directory
            return
        try:
            disk = own_ext4(directory, 4 * GIB)
        except (disks.Skip, OSError) as why:
            say(f"it has no journal, so times after deletions are not to be trusted; cannot mount another: {why}")
            yield directory
            return
        say("it has no journal, so an ext4 that has one is mounted from a file there")
        with disk:
            yield disk.path
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def own_ext4(directory, size):
    disks.need("mount", "mkfs.ext4", "losetup")
    if os.geteuid() != 0:
        raise disks.Skip("only root can mount")
    if disks.LIBC.unshare(disks.CLONE_NEWNS) != 0:
        raise disks.Skip("no mount namespace of its own")
    disks.LIBC.mount(b"none", b"/", None, disks.MS_REC | disks.MS_PRIVATE, None)
    disk = disks.Disk.on(directory / "disk", "ext4", size)
    disk.make()
    device = mount_of(disk.path)[0]
    disks.run("losetup", "--direct-io=on", device)  # or all bytes would be in memory twice
    return disk
