import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests import reader
from controller.manifests.problem import Problem
from controller.manifests.reader import Reader, read_file

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"


def labels(text, name="m.yaml"):
    reading = read_file(name, text.encode())
    assert reading.problems == ()
    return [found.label for found in reading.objects]


def lines(text, name="m.yaml"):
    return [str(problem) for problem in read_file(name, text.encode()).problems]


def test_several_documents_of_a_file_in_order():
    assert labels(f"{POD % 'b'}---\n{POD % 'a'}") == ["Pod default/b", "Pod default/a"]


def test_a_list_as_kubectl_prints_it():
    text = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a}}
- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: team}}
"""
    assert labels(text) == ["Pod default/a", "Pod team/b"]


def test_the_items_of_a_list_of_one_kind_need_not_repeat_it():
    text = '{"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]}'

    assert labels(text, "m.json") == ["Pod default/a"]


def test_an_item_is_named_by_its_place():
    text = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}, 5]"

    assert lines(text) == [
        "m.yaml: Pod (document 1, items[0]): metadata: this required field is missing",
        "m.yaml: document 1, items[1]: expected an object, got 5",
    ]


def test_other_kinds_are_skipped_and_named():
    text = "{apiVersion: apps/v1, kind: Deployment}\n---\n{apiVersion: v2, kind: Pod}\n---\n"
    text += "{apiVersion: v1, kind: List}\n"

    reading = read_file("m.yaml", text.encode())

    assert reading.skipped == ("Deployment (apps/v1)", "Pod (v2)", "List (v1)")
    assert (reading.objects, reading.problems) == ((), ())


def test_what_is_no_manifest_is_a_problem_with_its_place():
    assert lines(f"{POD % 'a'}---\nreplicas: 2\n---\n- 1\n---\napiVersion: 1\nkind: Pod\n") == [
        "m.yaml: document 2: apiVersion and kind are missing; every manifest has them",
        "m.yaml: document 3: expected an object, got a list",
        "m.yaml: document 4: apiVersion and kind are missing; every manifest has them",
    ]


def test_a_file_that_can_not_be_parsed_is_one_problem():
    (line,) = lines("a: [")

    assert line.startswith("m.yaml: is not valid YAML: ")


def test_a_faulty_object_is_declared_but_has_no_view():
    reading = read_file("m.yaml", (POD % "a" + "status: {podIP: x}\n").encode())

    assert [(found.label, found.view) for found in reading.objects] == [("Pod default/a", None)]
    assert reading.complete


def test_a_reading_is_incomplete_if_an_object_could_not_be_named():
    assert not read_file("m.yaml", b"x: 1").complete
    assert not Reader().read({}, (Problem("m.yaml", "", "", "cannot be read"),)).complete


def test_names_that_would_break_a_line_are_escaped():
    found = lines('apiVersion: v1\nkind: Pod\nmetadata: {name: "a\\nb", namespace: "\\e[31m"}')

    label = 'Pod "\\u001b[31m"/"a\\nb"'
    assert [line.partition(":" + " at most")[0] for line in found] == [
        f'm.yaml: {label}: metadata.name: "a\\nb" is not a Kubernetes name',
        f'm.yaml: {label}: metadata.namespace: "\\u001b[31m" is not a namespace',
    ]


def test_long_names_are_kept_apart():
    long = "x" * 200
    reading = read_file("m.yaml", f"{POD % (long + '1')}---\n{POD % (long + '2')}".encode())

    assert len({found.label for found in reading.objects}) == 2


def test_files_are_read_in_order_of_their_names():
    reading = Reader().read({"b.yaml": (POD % "b").encode(), "a.yaml": (POD % "a").encode()})

    assert [found.file for found in reading.objects] == ["a.yaml", "b.yaml"]


def test_only_changed_files_are_parsed_again(monkeypatch):
    parsed = []
    monkeypatch.setattr(reader, "read_file", lambda *file: parsed.append(file) or read_file(*file))
    again = Reader()
    again.read({"a.yaml": (POD % "a").encode(), "b.yaml": (POD % "b").encode()})
    parsed.clear()

    reading = again.read({"a.yaml": (POD % "a").encode(), "b.yaml": (POD % "c").encode()})

    assert [name for name, _ in parsed] == ["b.yaml"]
    assert [found.name for found in reading.objects] == ["a", "c"]
    assert [found.name for found in again.read({"b.yaml": (POD % "c").encode()}).objects] == ["c"]


@given(st.binary(max_size=400), st.sampled_from(["m.yaml", "m.json", "dir/m.yml"]))
def test_any_bytes_are_read(content, name):
    reading = read_file(name, content)

    assert all(str(problem).isprintable() for problem in reading.problems)


words = st.sampled_from(
    ["apiVersion", "v1", "kind", "Pod", "List", "items", "metadata", "name", "namespace", "labels"]
) | st.sampled_from(["spec", "rules", "modelName", "targetModels", "modelServerName", "weight", "podIP"])
manifests = st.recursive(
    words | st.none() | st.integers(-5, 200) | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=6),
    max_leaves=40,
)
objects = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from(["v1", "networking.serving.volcano.sh/v1alpha1"]),
        "kind": st.sampled_from(["Pod", "ModelRoute", "ModelServer", "List", "PodList"]),
        "metadata": manifests | st.just({"name": "x"}),
    },
    optional={"spec": manifests, "status": manifests, "items": manifests},
)


@given(objects)
def test_any_manifest_is_read(manifest):
    reading = read_file("m.yaml", yaml.safe_dump(manifest, allow_unicode=False).encode())

    for found in reading.objects:
        assert (found.view is None) == any(problem.object == found.label for problem in reading.problems)
