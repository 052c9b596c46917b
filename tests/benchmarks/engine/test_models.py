from benchmarks.engine.models import Adapter, Models


def test_the_base_and_its_adapters_can_be_named() -> None:
    models = Models("tiny", ["sql"])
    assert models.has("tiny")
    assert models.has("sql")
    assert not models.has("nope")
    assert (models.adapter("tiny"), models.adapter("sql")) == (None, Adapter("sql", 1))


def test_an_adapter_is_loaded_once_unless_in_place() -> None:
    models = Models("tiny", [])
    assert models.load("sql", "/one", in_place=False)
    assert not models.load("sql", "/two", in_place=False)
    assert models.adapters == {"sql": "/one"}
    assert models.load("sql", "/two", in_place=True)
    assert models.adapters == {"sql": "/two"}


def test_an_adapter_cannot_take_the_name_of_the_base() -> None:
    models = Models("tiny", [])
    assert not models.load("tiny", "/x", in_place=True)
    assert models.adapter("tiny") is None


def test_an_adapter_is_unloaded_once() -> None:
    models = Models("tiny", ["sql"])
    assert models.unload("sql")
    assert not models.unload("sql")
    assert not models.unload("tiny")
    assert not models.has("sql")
