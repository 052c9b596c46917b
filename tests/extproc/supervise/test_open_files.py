import resource
import subprocess
import sys

SCRIPT = "from extproc.supervise import open_files; import resource; open_files.allow_many(); \
print(*resource.getrlimit(resource.RLIMIT_NOFILE))"


def test_the_limit_is_raised_as_far_as_allowed():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], preexec_fn=few, capture_output=True, text=True, check=True
    )

    assert said.stdout.split() == [str(hard), str(hard)]
