import asyncio
import logging
import time
from contextlib import asynccontextmanager

import pytest

from controller.follow import compile_tree, counted, follow
from controller.manifests.problem import Problem
from controller.manifests.reader import Reader
from controller.source import Directory, Tree

DEADLINE_S = 20

SERVER = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: pool}
spec: {inferenceEngine: vLLM, workloadPort: {port: 8000}, workloadSelector: {matchLabels: {app: pool}}}
"""
ROUTE = """
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec: {modelName: chat, rules: [{targetModels: [{modelServerName: pool}]}]}
"""
GOOD = SERVER + "---" + ROUTE


class Recorder:
    """A publisher that only notes what it shall bring into force."""

    def __init__(self, generation=0):
        self.generation = generation
        self.applied = []

    def apply(self, records):
        self.applied.append(records)
        self.generation += 1


@asynccontextmanager
async def following(path, publisher):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow(Directory(path), publisher))
        yield
        task.cancel()


async def until(met):
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _all_lines(caplog):
    caplog.set_level(logging.INFO, logger="kvoy")


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "kvoy.controller"]


async def test_valid_manifests_are_applied_at_once_and_at_every_edit(tmp_path, caplog):
    (tmp_path / "a.yaml").write_text(GOOD)
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied)
        (tmp_path / "a.yaml").write_text(GOOD.replace("8000", "9000"))
        await until(lambda: publisher.applied[-1]["server/default/pool"].port == 9000)

    assert list(publisher.applied[0]) == ["route/default/chat", "server/default/pool"]
    assert lines(caplog) == []


async def test_while_something_is_wrong_the_last_good_generation_stays(tmp_path, caplog):
    (tmp_path / "a.yaml").write_text(GOOD)
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied)
        (tmp_path / "a.yaml").write_text(GOOD.replace("port: 8000", "port: 0").replace("vLLM", "TGI"))
        await until(lambda: "stays in force" in caplog.text)
        (tmp_path / "a.yaml").write_text(GOOD)
        await until(lambda: len(publisher.applied) == 2)

    assert publisher.applied[0] == publisher.applied[1]
    server = "a.yaml: ModelServer default/pool: spec."
    assert lines(caplog) == [
        server + 'inferenceEngine: expected one of "vLLM", "SGLang", got "TGI"',
        server + "workloadPort.port: expected an integer from 1 to 65535, got 0",
        "generation 1 stays in force until every problem (2) is corrected",
        "the manifests are valid again",
    ]
    assert [record.levelname for record in caplog.records][:3] == ["ERROR"] * 3


async def test_bad_from_the_start_nothing_is_published(tmp_path, caplog):
    (tmp_path / "a.yaml").write_text("a: [")
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: "until every problem" in caplog.text)
        assert publisher.applied == []
        (tmp_path / "a.yaml").write_text(GOOD)
        await until(lambda: publisher.applied)

    assert "nothing is published until every problem (1) is corrected" in lines(caplog)


async def test_routes_that_were_deleted_are_gone_but_not_silently(tmp_path, caplog):
    (tmp_path / "server.yaml").write_text(SERVER)
    (tmp_path / "route.yaml").write_text(ROUTE)
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied)
        (tmp_path / "route.yaml").unlink()
        await until(lambda: len(publisher.applied) == 2)
        (tmp_path / "server.yaml").unlink()
        await until(lambda: publisher.applied[-1] == {})

    assert set(lines(caplog)) == {"the manifests hold no ModelRoute: every model is unknown (404)"}


async def test_an_empty_directory_is_a_warning(tmp_path, caplog):
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied == [{}])

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the manifests hold no ModelRoute: every model is unknown (404)")
    ]


async def test_a_directory_that_vanishes_takes_nothing_away(tmp_path, caplog):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.yaml").write_text(GOOD)
    publisher = Recorder()
    async with following(tmp_path / "m", publisher):
        await until(lambda: publisher.applied)
        (tmp_path / "m").rename(tmp_path / "away")
        await until(lambda: "stays in force" in caplog.text)

    assert len(publisher.applied) == 1


async def test_skipped_kinds_are_one_warning_until_they_change(tmp_path, caplog):
    service = "apiVersion: v1\nkind: Service\n"
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(f"{service}---\n{service}---\napiVersion: apps/v1\nkind: Deployment\n")
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied)
        (tmp_path / "a.yaml").write_text(GOOD.replace("8000", "9000"))
        await until(lambda: len(publisher.applied) >= 2)
        (tmp_path / "b.yaml").write_text(service)
        await until(lambda: len(lines(caplog)) == 2)

    assert lines(caplog) == [
        "skipped, as kvoy does not read these kinds: 1 Deployment (apps/v1), 2 Service (v1)",
        "skipped, as kvoy does not read these kinds: 1 Service (v1)",
    ]


def write(path, text):
    """All at once: nobody sees half of it."""
    (path.parent / "draft").write_text(text)
    (path.parent / "draft").replace(path)


async def test_a_note_is_one_warning_until_it_is_settled(tmp_path, caplog):
    noted = GOOD.replace("vLLM,", "vLLM, kvConnector: {type: nixl},")
    write(tmp_path / "a.yaml", noted)
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: len(lines(caplog)) == 1)
        write(tmp_path / "b.yaml", noted.partition("---")[0].replace("name: pool", "name: other"))
        await until(lambda: len(lines(caplog)) == 2)
        write(tmp_path / "a.yaml", GOOD.replace("8000", "9000"))
        await until(lambda: publisher.applied[-1]["server/default/pool"].port == 9000)
        write(tmp_path / "a.yaml", noted)
        await until(lambda: len(lines(caplog)) == 3)

    idle = "spec.kvConnector of ModelServer default/{} has no effect without spec.workloadSelector.pdGroup"
    assert lines(caplog) == [idle.format("pool"), idle.format("other"), idle.format("pool")]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_what_could_not_be_read_is_a_problem_of_the_configuration():
    unread = Problem("b.yaml", "", "", "cannot be read: Permission denied")

    compilation = compile_tree(Reader(), Tree({"a.yaml": ROUTE.encode()}, (unread,)))

    assert compilation.problems == (unread,)


def test_counting():
    assert counted(("b", "a", "b")) == "1 a, 2 b"
    assert counted(()) == ""


async def test_the_scheduler_is_reloaded_and_a_faulty_one_changes_nothing(tmp_path, caplog):
    def scores(name):
        return f"scheduler: {{plugins: {{Score: {{enabled: [{{name: {name}}}]}}}}}}"

    def scorers(records):
        return [plugin.name for plugin in records["scheduler/default"].profile.scorers]

    (tmp_path / "a.yaml").write_text(GOOD)
    schedule = tmp_path / "scheduler.yaml"
    schedule.write_text(scores("gpu-usage"))
    publisher = Recorder()
    async with following(tmp_path, publisher):
        await until(lambda: publisher.applied)
        schedule.write_text(scores("gpu-usge"))
        await until(lambda: any("gpu-usge" in line for line in lines(caplog)))
        schedule.write_text(scores("random"))
        await until(lambda: len(publisher.applied) == 2)
        schedule.unlink()
        await until(lambda: len(publisher.applied) == 3)

    assert [scorers(records) for records in publisher.applied[:2]] == [["gpu-usage"], ["random"]]
    assert "scheduler/default" not in publisher.applied[2]
