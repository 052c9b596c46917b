import asyncio
import os
import shutil
from contextlib import aclosing, asynccontextmanager

import pytest

from controller.manifests.text import MAX_BYTES
from controller.source import Directory, Tree

DEADLINE_S = 20
QUIET_S = 1.2
"""Longer than the directory is ever left unlooked at."""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "manifests"
    path.mkdir()
    return path


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def replace(folder, name, content):
    """Atomically, as editors do."""
    write(folder, f".{name}.tmp", content).rename(folder / name)


def files(folder):
    tree = Directory(folder).read()
    assert tree.problems == ()
    return tree.files


def problems(folder):
    return [str(problem) for problem in Directory(folder).read().problems]


class TestRead:
    def test_manifests_in_sub_directories_too_and_nothing_else(self, folder):
        for name in (
            "a.yaml",
            "b.yml",
            "c.json",
            "team/d.yaml",
            "team/x/e.yaml",
            "README.md",
            "a.yaml~",
            "f.YAML",
        ):
            write(folder, name, name)

        assert list(files(folder)) == ["a.yaml", "b.yml", "c.json", "team/d.yaml", "team/x/e.yaml"]
        assert files(folder)["team/d.yaml"] == b"team/d.yaml"

    def test_hidden_files_and_directories_are_left_out(self, folder):
        for name in (".a.yaml", ".a.yaml.swp", ".git/b.yaml", "#c.yaml#", ".#d.yaml"):
            write(folder, name, "x")

        assert files(folder) == {}

    def test_a_mounted_config_map(self, folder):
        write(folder, "..2026_01_01/a.yaml", "one")
        write(folder, "..2026_01_01/sub/b.yaml", "two")
        (folder / "..data").symlink_to("..2026_01_01")
        (folder / "a.yaml").symlink_to("..data/a.yaml")
        (folder / "sub").symlink_to("..data/sub")

        assert files(folder) == {"a.yaml": b"one", "sub/b.yaml": b"two"}

    def test_links_that_lead_in_a_circle(self, folder):
        write(folder, "sub/a.yaml", "one")
        (folder / "sub" / "up").symlink_to(folder)

        assert list(files(folder)) == ["sub/a.yaml"]

    def test_a_link_to_nothing(self, folder):
        (folder / "a.yaml").symlink_to("gone.yaml")

        assert problems(folder) == ["a.yaml: cannot be read: No such file or directory"]

    def test_what_is_no_file(self, folder):
        os.mkfifo(folder / "a.yaml")
        (folder / "b.yaml").mkdir()

        assert problems(folder) == ["a.yaml: is not a regular file"]

    @pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
    def test_what_may_not_be_read(self, folder):
        write(folder, "a.yaml", "x").chmod(0)
        (folder / "sub").mkdir(mode=0)

        assert problems(folder) == [
            f"{folder}/sub: cannot be listed: Permission denied",
            "a.yaml: cannot be read: Permission denied",
        ]

    def test_a_directory_that_is_missing(self, folder):
        folder.rmdir()

        assert problems(folder) == [f"{folder}: cannot be listed: No such file or directory"]

    def test_no_more_of_a_file_is_read_than_it_takes_to_refuse_it(self, folder):
        with write(folder, "a.yaml", "x").open("ab") as file:
            file.truncate(3 * MAX_BYTES)

        assert len(files(folder)["a.yaml"]) == MAX_BYTES + 1

    def test_a_name_that_is_not_text(self, folder):
        write(folder, os.fsdecode(b"a\xff\n.yaml"), "x")

        assert list(files(folder)) == ["a\\udcff\\n.yaml"]

    def test_a_directory_that_changes_while_it_is_read_is_read_again(self, folder, monkeypatch):
        write(folder, "a.yaml", "one")
        load = Directory._load

        def load_and_edit(self):
            tree = load(self)
            if tree.files == {"a.yaml": b"one"}:
                replace(folder, "a.yaml", "two!")
            return tree

        monkeypatch.setattr(Directory, "_load", load_and_edit)

        assert files(folder) == {"a.yaml": b"two!"}


class Watcher:
    def __init__(self, trees):
        self._trees = trees

    async def next(self) -> Tree:
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self._trees)

    async def until(self, wanted) -> int:
        """How many trees it took until the files were as wanted."""
        seen = 1
        while (await self.next()).files != wanted:
            seen += 1
        return seen


@asynccontextmanager
async def watching(path):
    async with aclosing(Directory(path).follow()) as trees:
        yield Watcher(trees)


class TestFollow:
    async def test_the_tree_comes_at_once_then_at_every_change(self, folder):
        write(folder, "a.yaml", "one")
        async with watching(folder) as watcher:
            assert (await watcher.next()).files == {"a.yaml": b"one"}

            write(folder, "b.yaml", "added")
            await watcher.until({"a.yaml": b"one", "b.yaml": b"added"})

            write(folder, "a.yaml", "edited")
            await watcher.until({"a.yaml": b"edited", "b.yaml": b"added"})

            replace(folder, "a.yaml", "replaced")
            await watcher.until({"a.yaml": b"replaced", "b.yaml": b"added"})

            (folder / "b.yaml").rename(folder / "c.yaml")
            await watcher.until({"a.yaml": b"replaced", "c.yaml": b"added"})

            (folder / "a.yaml").unlink()
            await watcher.until({"c.yaml": b"added"})

            write(folder, "new/d.yaml", "deep")
            await watcher.until({"c.yaml": b"added", "new/d.yaml": b"deep"})

            write(folder, "new/d.yaml", "deeper")
            await watcher.until({"c.yaml": b"added", "new/d.yaml": b"deeper"})

    async def test_an_edit_of_many_files_is_one(self, folder):
        async with watching(folder) as watcher:
            await watcher.next()
            # The first change is awaited so that the watch is known to be in place.
            write(folder, "first.yaml", "x")
            await watcher.until({"first.yaml": b"x"})

            for at in range(20):
                write(folder, f"{at:02}.yaml", "x")

            wanted = {f"{at:02}.yaml": b"x" for at in range(20)} | {"first.yaml": b"x"}
            assert await watcher.until(wanted) <= 2  # two, if this test is held up between two files

    async def test_a_config_map_that_is_updated(self, folder):
        write(folder, "..1/a.yaml", "one")
        (folder / "..data").symlink_to("..1")
        (folder / "a.yaml").symlink_to("..data/a.yaml")
        async with watching(folder) as watcher:
            assert (await watcher.next()).files == {"a.yaml": b"one"}

            write(folder, "..2/a.yaml", "two")
            (folder / "..data_tmp").symlink_to("..2")
            (folder / "..data_tmp").rename(folder / "..data")
            await watcher.until({"a.yaml": b"two"})
            shutil.rmtree(folder / "..1")

            write(folder, "..3/a.yaml", "three")
            (folder / "..data_tmp").symlink_to("..3")
            (folder / "..data_tmp").rename(folder / "..data")
            await watcher.until({"a.yaml": b"three"})

    async def test_a_link_that_names_another_directory(self, tmp_path):
        write(tmp_path / "v1", "a.yaml", "one")
        write(tmp_path / "v2", "a.yaml", "two")
        (tmp_path / "current").symlink_to("v1")
        async with watching(tmp_path / "current") as watcher:
            assert (await watcher.next()).files == {"a.yaml": b"one"}

            (tmp_path / "next").symlink_to("v2")
            (tmp_path / "next").rename(tmp_path / "current")
            await watcher.until({"a.yaml": b"two"})

            write(tmp_path / "v2", "a.yaml", "two, edited")
            await watcher.until({"a.yaml": b"two, edited"})

    async def test_a_directory_that_goes_and_comes_back(self, folder):
        write(folder, "a.yaml", "one")
        async with watching(folder) as watcher:
            await watcher.next()

            folder.rename(folder.parent / "away")
            while not (await watcher.next()).problems:
                pass
            write(folder, "a.yaml", "two")
            await watcher.until({"a.yaml": b"two"})

            write(folder, "a.yaml", "three")
            await watcher.until({"a.yaml": b"three"})

    async def test_what_is_no_manifest_wakes_nobody(self, folder):
        write(folder, "a.yaml", "one")
        async with watching(folder) as watcher:
            await watcher.next()
            write(folder, ".a.yaml.swp", "x")
            write(folder, "notes.txt", "x")
            write(folder, "a.yaml", "one")

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(QUIET_S):
                    await anext(watcher._trees)

    async def test_edits_without_a_notice_are_found_all_the_same(self, folder, monkeypatch):
        def unavailable(*_, **__):
            raise OSError("OS file watch limit reached")

        monkeypatch.setattr("controller.source.awatch", unavailable)
        async with watching(folder) as watcher:
            assert (await watcher.next()).files == {}
            write(folder, "a.yaml", "one")
            await watcher.until({"a.yaml": b"one"})
