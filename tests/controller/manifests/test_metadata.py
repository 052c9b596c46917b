import pytest

from controller.manifests.metadata import Metadata, faults, is_dns_name
from controller.manifests.shape import convert


@pytest.mark.parametrize("name", ["a", "a-b", "a.b-c.0", "0", "a" * 253, ".".join(["a" * 50] * 4)])
def test_kubernetes_names(name):
    assert list(faults(Metadata(name))) == []


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "é", "a\n", "a" * 254])
def test_other_names_are_refused(name):
    (fault,) = faults(Metadata(name))

    assert fault.field == "metadata.name"
    assert "is not a Kubernetes name" in fault.message


@pytest.mark.parametrize("namespace", ["", "a.b", "A", "a" * 64])
def test_other_namespaces_are_refused(namespace):
    (fault,) = faults(Metadata("x", namespace))

    assert fault.field == "metadata.namespace"


def test_the_namespace_is_default_unless_given():
    assert convert({"name": "x"}, Metadata, {})[0] == Metadata("x", "default")


def test_what_kubernetes_adds_is_accepted_without_effect():
    printed = {
        "name": "x",
        "uid": "1",
        "resourceVersion": "3",
        "managedFields": [{"manager": "kubectl"}],
        "creationTimestamp": None,
        "annotations": None,
    }

    assert convert(printed, Metadata, {}) == (Metadata("x"), ())


def test_created_is_in_seconds_since_1970():
    built, _ = convert({"name": "x", "creationTimestamp": "2026-01-02T03:04:05Z"}, Metadata, {})

    assert built.created == 1767323045.0
    assert Metadata("x").created == 0.0


@pytest.mark.parametrize("when", ["yesterday", "2026-01-02", "2026-01-02T03:04:05", 5, ""])
def test_a_time_that_is_none_is_refused(when):
    _, (fault,) = convert({"name": "x", "creationTimestamp": when}, Metadata, {})

    assert fault.field == "creationTimestamp"
    assert "expected a time such as 2026-01-31T12:00:00Z" in fault.message


def test_dns_names_of_tls_servers():
    assert is_dns_name("engine.models.svc.cluster.local")
    assert not is_dns_name("*.models.svc")
    assert not is_dns_name("a" * 64 + ".svc")
