import msgspec

from controller.manifests.kinds import KINDS
from controller.manifests.unsupported import REFUSED


def test_every_kind_is_read_by_the_view_of_its_name_and_has_a_table_of_refusals():
    assert {kind: view.__name__ for (_, kind), view in KINDS.items()} == {kind: kind for kind in REFUSED}


def test_what_is_refused_is_no_field_of_the_view():
    for (_, kind), view in KINDS.items():
        assert not REFUSED[kind].keys() & set(paths(view, ""))


def paths(view, prefix):
    for field in msgspec.structs.fields(view):
        yield f"{prefix}{field.encode_name}"
        for part in (field.type, *getattr(field.type, "__args__", ())):
            for inner in (part, *getattr(part, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                    listed = "[]" if inner is not field.type else ""
                    yield from paths(inner, f"{prefix}{field.encode_name}{listed}.")
