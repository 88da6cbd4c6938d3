from pathlib import Path

import pytest

from lightning_hpo.hardware.filesystems import network_filesystem

_MOUNTS = r"""22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/me/local\040disk rw shared:2 master:3 - xfs /dev/sdb1 rw
32 22 0:42 / /twice rw - nfs server:/a rw
33 22 0:43 / /twice rw - tmpfs tmpfs rw
34 22 0:44 / /far rw - fuse.sshfs me@host: rw
35 22 0:45 / /near rw - fuse.grpcfuse grpcfuse rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/a.db", None),
        ("/home/me/new/a.db", "nfs4"),
        ("/home/me/local disk/a.db", None),
        ("/homes/a.db", None),
        ("/twice/a.db", None),
        ("/far/a.db", "fuse.sshfs"),
        ("/near/a.db", None),
    ],
)
def test_innermost_mount_tells_whether_a_path_is_on_a_network(
    path: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(_MOUNTS)
    monkeypatch.setattr("lightning_hpo.hardware.filesystems._MOUNTS", mounts)
    assert network_filesystem(Path(path)) == kind


def test_folder_of_the_tests_is_on_this_machine(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path) is None


def test_unknown_file_system_counts_as_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_hpo.hardware.filesystems._MOUNTS", tmp_path / "none")  # macOS
    assert network_filesystem(tmp_path) is None
