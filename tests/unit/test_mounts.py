"""Which file system holds a path, by tables as the kernel writes them."""

from __future__ import annotations

import pytest

from launcher.host.mounts import file_system

TABLE = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /dev rw shared:1 - devtmpfs none rw
24 23 0:21 / /dev/shm rw - tmpfs tmpfs rw
30 22 0:30 / /mnt/a\040b rw - xfs /dev/vdb rw
31 22 0:31 / /mnt/a\040b rw - hugetlbfs none rw
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/dev/shm/x", "tmpfs"),
        ("/dev/shm", "tmpfs"),
        ("/dev/shmoo", "devtmpfs"),
        ("/mnt/a b/c/d", "hugetlbfs"),
        ("/mnt/ab", "ext4"),
    ],
)
def test_the_longest_and_last_mount_counts(tmp_path, path, kind):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert file_system(path, str(table)) == kind


def test_nobody_tells(tmp_path):
    assert file_system("/", str(tmp_path / "none")) == ""
    (tmp_path / "empty").write_text("")
    assert file_system("/", str(tmp_path / "empty")) == ""


def test_this_host():
    assert file_system("/proc/self/status") == "proc"
