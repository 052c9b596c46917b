"""The documentation says what the code does."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from controller.follow import compile_tree
from controller.manifests.reader import Reader
from controller.manifests.scheduler import read_text
from controller.source import Directory
from extproc.cli import main
from extproc.handoff.ledger import Ending, Result
from extproc.state.records import ConnectorName

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
REFERENCE = ROOT / "docs" / "reference.md"
HANDOFF = ROOT / "docs" / "prefill-decode.md"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")


def test_the_reference_page_is_what_the_code_says() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()

    assert REFERENCE.read_text() == generated, "run `make docs`"


def test_every_name_between_the_parts_is_documented() -> None:
    body = ast.parse((ROOT / "extproc/state/envoy.py").read_text()).body
    page = REFERENCE.read_text()
    names = [
        node.targets[0].id  # type: ignore[attr-defined]
        for node in body
        if isinstance(node, ast.Assign) and isinstance(ast.literal_eval(node.value), str)
    ]

    assert [name for name in names if f"| {name} |" not in page] == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, heading = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not heading or heading in anchors(linked), target


@every_page
def test_make_verbs_and_paths_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = page.read_text()
    for verb in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), verb
    for path in re.findall(r"`((?:extproc|controller|benchmarks|examples|docs|tests)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for verb, rest in commands(page.read_text()):
        command = main.get_command(click.Context(main), verb)
        assert command is not None, verb
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert [
            name for name in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", rest) if name not in known
        ] == [], verb


@every_page
def test_metrics_and_annotations_exist(page: Path) -> None:
    listed = REFERENCE.read_text()
    for name in re.findall(r"`(kvoy_[a-z_]+|kvoy\.io/[a-z-]+)`", page.read_text()):
        assert f"`{name}`" in listed, name


@every_page
def test_scheduler_configurations_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        # The tutorial names a plugin that its reader writes; it has a test of its own.
        if block.startswith("scheduler:") and page.name != "CONTRIBUTING.md":
            view, faults = read_text(block)
            assert view is not None, faults
            assert faults == ()


def test_the_manifests_of_prefill_and_decode_are_valid(tmp_path: Path) -> None:
    (whole,) = re.findall(r"```yaml\n(.*?)```", HANDOFF.read_text(), re.DOTALL)
    (tmp_path / "chat.yaml").write_text(whole)

    compiled = compile_tree(Reader(), Directory(tmp_path).read())

    assert (compiled.problems, compiled.notes) == ((), ())
    assert len(compiled.records) == 4


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("type | legs", set(get_args(ConnectorName)) - {"sglang"}),
        ("type | environment", set(get_args(ConnectorName)) - {"sglang"}),
        ("result", set(get_args(Result))),
        ("ending", set(get_args(Ending))),
    ],
)
def test_everything_that_may_become_of_a_hand_off_is_told(heading: str, known: set[str]) -> None:
    (table,) = re.findall(rf"^\| {re.escape(heading)}.*\n((?:\|.*\n)+)", HANDOFF.read_text(), re.MULTILINE)
    told = {name for row in table.splitlines() for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}

    assert known <= told


def anchors(page: Path) -> set[str]:
    """The names under which the headings of a page are linked, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each use of `kvoy` in code: the verb, and what follows it up to the end of the code or a comment."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for code in [*lines, *spans]:
        found = re.match(r"(?:\.venv/bin/)?kvoy ([a-z]+)\b([^#]*)", code.strip())
        # `kvoy is ready` is what `kvoy up` prints.
        if found and found[1] != "is":
            yield found[1], found[2]
