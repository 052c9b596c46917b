import pytest
import zmq

from extproc.collect.kv.sockets import Sockets
from tests.extproc.collect.kv.publisher import Publisher


@pytest.fixture
def sockets():
    opened = Sockets()
    yield opened
    opened.close()


@pytest.fixture
def publish():
    """Starts publishers: see `Publisher`."""
    context = zmq.Context()
    started = []

    def start(**options):
        started.append(Publisher(context, **options))
        return started[-1]

    yield start
    for publisher in started:
        publisher.close()
    context.term()
