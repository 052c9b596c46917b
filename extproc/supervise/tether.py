"""The command line that makes a child die with its parent, even when the parent is killed by SIGKILL.

`tethered(argv)` puts this file, run as a script, before the command: it asks the kernel for a SIGKILL when
the parent dies, which survives exec, and then becomes the command. Asking between fork and exec in the parent
itself (``preexec_fn``) is not safe in a process with threads.

The kernel watches the *thread* that spawned the child: spawn from the main thread. What the child starts
itself is not tethered.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tethered(argv: tuple[str, ...]) -> tuple[str, ...]:
    """`argv` as a command that dies with the calling process."""
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *argv)


def python(*args: str) -> tuple[str, ...]:
    """This Python with `args`; it never imports from the working directory, whatever lies there."""
    return (sys.executable, "-P", *args)


def main() -> None:
    """Become ``argv[2:]``, tethered to the process ``argv[1]``."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored signals would pass on to the command
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
