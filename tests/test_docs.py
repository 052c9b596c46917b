"""The documentation says what the code does."""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_page_is_what_the_code_says() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()

    assert (ROOT / "docs" / "reference.md").read_text() == generated, "run `make docs`"


def test_every_name_between_the_parts_is_documented() -> None:
    body = ast.parse((ROOT / "extproc/state/envoy.py").read_text()).body
    page = (ROOT / "docs" / "reference.md").read_text()
    names = [
        node.targets[0].id  # type: ignore[attr-defined]
        for node in body
        if isinstance(node, ast.Assign) and isinstance(ast.literal_eval(node.value), str)
    ]

    assert [name for name in names if f"| {name} |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_verbs_and_paths_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = page.read_text()
    for verb in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), verb
    for path in re.findall(r"`((?:extproc|controller|benchmarks|examples|docs|tests)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
