import msgspec
import pytest

from extproc.handoff.connector import NoParameters, Reply
from extproc.handoff.connectors.nixl import Nixl


def test_the_prefill_engine_is_told_that_another_one_decodes(transfer, fields):
    assert fields(Nixl().prefill(transfer())) == {
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        }
    }


def test_the_decode_engine_gets_the_prefill_engines_words(transfer):
    words = b'{ "remote_block_ids" : [[1,2]], "new_in_the_next_version": 1e400 }'

    leg = Nixl().decode(transfer(), Reply(msgspec.Raw(words), 10, 0))

    assert dict(leg.fields) == {"kv_transfer_params": words}
    assert leg.headers == {}


def test_without_its_words_there_is_no_transfer(transfer):
    with pytest.raises(NoParameters):
        Nixl().decode(transfer(), Reply(None, 10, 0))
