from extproc.schedule.plugin import Args
from extproc.schedule.plugins.lora_affinity import LoraAffinity
from extproc.schedule.testing import a_member, a_pool

HAS = a_member(adapters=("legal", "sql"))
LACKS = a_member(adapters=("sql",))
NONE = a_member(adapters=())
UNKNOWN = a_member()
UNTOLD = a_member(running=1)


def kept(*members, adapter="legal"):
    reasons = LoraAffinity(Args()).reasons(a_pool(*members, adapter=adapter))
    return [at for at, reason in enumerate(reasons) if reason is None]


def test_only_engines_with_the_adapter_stay():
    assert kept(LACKS, HAS, NONE, HAS) == [1, 3]


def test_a_base_model_is_served_by_all():
    assert kept(LACKS, HAS, UNKNOWN, adapter=None) == [0, 1, 2]


def test_the_unknown_is_dropped_while_another_has_the_adapter():
    assert kept(UNKNOWN, HAS, UNTOLD) == [1]


def test_the_unknown_stays_while_nobody_is_known_to_have_it():
    assert kept(UNKNOWN, LACKS, UNTOLD) == [0, 2]


def test_nobody_stays_where_all_are_known_to_lack_it():
    assert kept(LACKS, NONE) == []


def test_the_reasons_name_the_adapter():
    assert LoraAffinity(Args()).reasons(a_pool(LACKS, HAS, UNKNOWN, adapter="legal")) == [
        "does not have the adapter legal",
        None,
        "not known to have the adapter legal, as another endpoint is",
    ]
