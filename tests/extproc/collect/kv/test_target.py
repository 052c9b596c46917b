from extproc.collect.kv.target import Target


def test_the_secret_does_not_show():
    target = Target("pod/ns/a", 1, "10.0.0.1", "http://10.0.0.1:8000", 0, "vLLM", None, b"deep secret")

    assert "deep secret" not in repr(target)
    assert "pod/ns/a" in repr(target)
