import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.state.fold import Gap, Records, fold
from extproc.state.records import Delete, Publication, Put
from extproc.testing import a_pod, a_server

A, B = a_pod("a", "s"), a_pod("b", "s")
HELD = Records("e", 4, {A.key: A})


def put(*records: object) -> tuple[Put, ...]:
    return tuple(Put(record) for record in records)


def test_the_next_generation_is_applied() -> None:
    after = fold(HELD, Publication("e", 5, (*put(B), Delete(A.key))))

    assert after == Records("e", 5, {B.key: B})


def test_the_records_held_before_stay_as_they_were() -> None:
    fold(HELD, Publication("e", 5, (*put(B), Delete(A.key))))

    assert HELD.by_key == {A.key: A}


def test_a_changed_record_replaces_the_old_one() -> None:
    moved = a_pod("a", "s", ip="10.0.0.9")

    assert fold(HELD, Publication("e", 5, put(moved))).by_key == {A.key: moved}


def test_a_record_deleted_and_put_in_one_step_stays() -> None:
    assert fold(HELD, Publication("e", 5, (Delete(A.key), *put(A)))).by_key == {A.key: A}


def test_deleting_what_is_not_there_is_no_fault() -> None:
    assert fold(HELD, Publication("e", 5, (Delete("pod/default/never"),))).by_key == {A.key: A}


@pytest.mark.parametrize("generation", [1, 3, 4])
def test_a_publication_already_contained_changes_nothing(generation: int) -> None:
    assert fold(HELD, Publication("e", generation, put(B))) is HELD


@pytest.mark.parametrize(("epoch", "generation"), [("e", 6), ("other", 5), ("other", 1), ("other", 9)])
def test_a_step_that_does_not_continue_is_a_gap(epoch: str, generation: int) -> None:
    with pytest.raises(Gap, match=f"generation {generation} of epoch {epoch} does not continue generation 4"):
        fold(HELD, Publication(epoch, generation, put(B)))


def test_nothing_continues_an_empty_replica_but_a_whole_publication() -> None:
    with pytest.raises(Gap):
        fold(Records(), Publication("e", 1, put(A)))

    assert fold(Records(), Publication("e", 1, put(A), whole=True)) == Records("e", 1, {A.key: A})


@pytest.mark.parametrize("generation", [1, 5, 50])
def test_a_whole_publication_of_another_epoch_replaces_everything(generation: int) -> None:
    after = fold(HELD, Publication("new", generation, put(B), whole=True))

    assert after == Records("new", generation, {B.key: B})


steps = st.lists(
    st.one_of(
        st.sampled_from([A, B, a_pod("a", "t"), a_server("s")]).map(Put),
        st.sampled_from([A.key, B.key, "server/default/s"]).map(Delete),
    ).map(lambda change: (change,)),
    max_size=12,
)


@given(steps)
def test_folding_steps_equals_doing_them_one_after_the_other(changes: list[tuple[Put | Delete]]) -> None:
    expected, records = {}, fold(Records(), Publication("e", 1, (), whole=True))
    for generation, (change,) in enumerate(changes, start=2):
        records = fold(records, Publication("e", generation, (change,)))
        if isinstance(change, Put):
            expected[change.record.key] = change.record
        else:
            expected.pop(change.key, None)

    assert records == Records("e", len(changes) + 1, expected)
