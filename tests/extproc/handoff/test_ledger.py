from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.handoff.connector import Reply
from extproc.handoff.ledger import Ledger
from extproc.state.snapshot import Endpoint

OTHER = Endpoint.of("pod/default/other", "10.0.0.2:8000")
ENTRIES = {
    "transferred": (lambda ledger: ledger.computed(Reply(None, 9, 3), 0.5), ("computed", 9, 0.5)),
    "alone": (lambda ledger: ledger.failed(alone=True), ("dropped", True)),
    "failed": (lambda ledger: ledger.failed(alone=False), ("dropped", True)),
    "left": (lambda ledger: ledger.left(), ("dropped", False)),
    "sidecar": (lambda ledger: ledger.left_to_sidecar(), ("sidecar", 77)),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(st.sampled_from(tuple(ENTRIES)), min_size=1), moves=st.integers(0, 2))
def test_the_first_entry_that_ends_it_is_the_only_one(fresh_books, handoff, entries, moves):
    books, diary, clock = fresh_books()
    ledger = Ledger(handoff("nixl", OTHER), books, diary, clock)
    for _ in range(moves):
        ledger.moved(OTHER)

    for entry in entries:
        ENTRIES[entry][0](ledger)

    assert books.live == {}
    assert books.ways[moves:] == [ENTRIES[entries[0]][1]]
    assert diary.endings == entries[:1]


def test_a_try_has_its_seconds(fresh_books, handoff):
    books, diary, clock = fresh_books()
    ledger = Ledger(handoff("nixl", OTHER), books, diary, clock)
    began = ledger.clock()
    clock.now += 1.5

    ledger.tried(OTHER, "timeout", began)

    assert (diary.tries, diary.seconds) == ([("other", "timeout")], [1.5])
