from benchmarks.engine import journal as module
from benchmarks.engine.journal import Journal, Outcome


def test_the_oldest_requests_go_first_and_all_are_counted() -> None:
    journal = Journal(2)
    for number in range(5):
        journal.open("POST", f"/{number}", (), b"x")
    assert [entry.path for entry in journal] == ["/3", "/4"]
    assert journal.received == 5


def test_large_bodies_push_out_older_requests() -> None:
    journal = Journal(100)
    for _ in range(5):
        journal.open("POST", "/", (), b"x" * (module.KEPT_BYTES // 3))
    assert len(journal) == 3


def test_a_body_over_the_limit_is_not_kept_and_harms_nothing() -> None:
    journal = Journal(100)
    journal.open("POST", "/big", (), b"x" * (module.KEPT_BYTES + 1))
    journal.open("POST", "/small", (), b"x")
    assert [entry.path for entry in journal] == ["/small"]


def test_a_capacity_of_zero_keeps_nothing() -> None:
    journal = Journal(0)
    journal.close(journal.open("GET", "/", (), b""), Outcome.FINISHED)
    assert (len(journal), journal.count(Outcome.FINISHED)) == (0, 1)


def test_the_first_outcome_stands() -> None:
    journal = Journal(10)
    entry = journal.open("POST", "/", (), b"")
    assert journal.count(Outcome.OPEN) == 1
    journal.close(entry, Outcome.RESET)
    journal.close(entry, Outcome.ABORTED)
    assert entry.outcome is Outcome.RESET
    assert [journal.count(outcome) for outcome in Outcome] == [0, 0, 0, 1]


def test_headers_are_found_whatever_their_case() -> None:
    entry = Journal(1).open("GET", "/", (("User-Type", "premium"), ("user-type", "second")), b"")
    assert entry.header("user-TYPE") == "premium"
    assert entry.header("absent") is None
