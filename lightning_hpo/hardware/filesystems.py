"""File systems: which paths are on another machine."""

import re
from pathlib import Path

__all__ = ["network_filesystem"]

_MOUNTS = Path("/proc/self/mountinfo")  # Linux only
_ON_A_NETWORK = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|afs|ceph|lustre|gpfs|beegfs|9p|fuse\.(sshfs|glusterfs|cephfs|.*nfs)"
)


def network_filesystem(path: Path) -> str | None:
    """Return the type of a path's file system, such as `nfs4`, if it is on a network. None if it is not, or unknown.

    Args:
        path: A file or folder; it need not exist yet.
    """
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = path.resolve()
    around = [mount for mount in map(_mount, lines) if path.is_relative_to(mount[0])]
    # Of two mounts at the same folder, the later one hides the earlier.
    _, kind = max(reversed(around), key=lambda mount: len(mount[0].parts), default=(path, ""))
    return kind if _ON_A_NETWORK.fullmatch(kind) else None


def _mount(line: str) -> tuple[Path, str]:
    """Return the folder and the type of a line, such as `36 35 98:0 / /mnt rw shared:1 - nfs4 host:/a rw`."""
    left, _, right = line.partition(" - ")
    folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), left.split(" ")[4])
    return Path(folder), right.split(" ")[0]
