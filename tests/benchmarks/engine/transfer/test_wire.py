import msgspec
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.transfer.wire import Found, Sought, Wanted

_TEXT = st.text(st.characters(codec="utf-8"))
_MESSAGES = st.one_of(
    st.builds(Wanted, _TEXT, st.none() | _TEXT, st.none() | st.integers(1, 64), _TEXT, _TEXT, st.booleans()),
    st.builds(Sought, st.lists(st.binary())),
    st.builds(Found, st.integers(0, 2**40)),
)


@given(_MESSAGES)
def test_a_message_arrives_as_it_was_sent(message: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message
