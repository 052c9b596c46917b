import pytest

from controller.up.ready import Ready

ONE = Ready("http://127.0.0.1:8080", ("http://127.0.0.1:9190",), "http://127.0.0.1:9189")
TWO = Ready(
    "http://127.0.0.1:8080", ("http://127.0.0.1:9190", "http://127.0.0.1:9191"), "http://127.0.0.1:9189"
)


def test_the_line_says_where_requests_go():
    assert TWO.line == (
        "kvoy is ready: http://127.0.0.1:8080 "
        "(2 workers; admin http://127.0.0.1:9190, http://127.0.0.1:9191; "
        "collector http://127.0.0.1:9189; Ctrl-C stops it)"
    )
    assert "(1 worker; " in ONE.line


@pytest.mark.parametrize(
    "ready", [ONE, TWO, Ready("http://[::1]:80", ("http://[::1]:81",), "http://[::1]:80")]
)
def test_a_script_reads_back_what_was_said(ready):
    assert Ready.parse(f"{ready.line}\n") == ready


@pytest.mark.parametrize("line", ["", "kvoy is ready", "kvoy is ready: soon", f"really, {ONE.line}"])
def test_any_other_line_is_refused(line):
    with pytest.raises(ValueError, match="this is no ready line"):
        Ready.parse(line)
