"""What runs on this machine, read from /proc."""

from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """Pid to command line of every process below `pid`."""
    children = _children()
    found: dict[int, str] = {}
    left = [pid]
    while left:
        for child in children.get(left.pop(), []):
            left.append(child)
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[child] = words.decode(errors="replace").strip()
    return found


def _children() -> dict[int, list[int]]:
    """Pid to the pids of its children, for all processes."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    return children
