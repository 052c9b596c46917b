from pathlib import Path
from random import Random

import msgspec
import pytest

from extproc.schedule import catalogue, plugins
from extproc.schedule.catalogue import CATALOGUE, UnknownPlugin
from extproc.schedule.plugin import Scorer
from extproc.schedule.testing import a_member, a_pool
from extproc.state.records import Plugin


def test_every_plugin_file_is_in_the_catalogue():
    (folder,) = map(Path, plugins.__path__)
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}

    assert {name.replace("-", "_") for name in CATALOGUE} == files


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_plugin_is_built_from_its_defaults_and_looks_at_a_pool(name):
    entry = CATALOGUE[name]
    assert list(entry.args().faults()) == []
    assert entry.screen or entry.scorer
    for members in (1, 3):
        pool = a_pool(*[a_member() for _ in range(members)], prompt=0, adapter="x")
        if entry.screen:
            assert len(catalogue.screen(Plugin(name)).reasons(pool)) == members
        if entry.scorer:
            scorer = catalogue.scorer(Plugin(name))
            assert all(0 <= score <= 1 for score in scorer.scores(pool, Random(1)))
            assert len(scorer.scores(pool, Random(1))) == len(scorer.raw(pool)) == members


def test_what_is_not_there_is_named():
    with pytest.raises(UnknownPlugin, match="no screen is called gpu-usage"):
        catalogue.screen(Plugin("gpu-usage"))
    with pytest.raises(UnknownPlugin, match="no scorer is called lora-affinity"):
        catalogue.scorer(Plugin("lora-affinity"))
    with pytest.raises(UnknownPlugin, match="no scorer is called x"):
        catalogue.scorer(Plugin("x"))


def test_arguments_reach_the_plugin():
    assert catalogue.scorer(Plugin("lmetric", {"exact": True})).wants_exact
    with pytest.raises(msgspec.ValidationError):
        catalogue.screen(Plugin("least-request", {"maxWaitingRequests": "x"}))


def test_a_scorer_does_not_want_token_ids_unless_it_says_so():
    scorers = {name: catalogue.scorer(Plugin(name)) for name, entry in CATALOGUE.items() if entry.scorer}

    assert not Scorer.wants_exact
    assert {name for name, scorer in scorers.items() if scorer.wants_exact} == {"kvcache-aware"}
