from benchmarks.engine.api.context import Context
from benchmarks.engine.faults import Faults
from benchmarks.engine.journal import Journal
from benchmarks.engine.models import Models
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.desk import opened


async def test_an_answer_names_the_model_asked_for_or_the_base() -> None:
    settings = EngineSettings(model="tiny", prompt_tokens_details=False)
    ranks = Ranks(settings, lambda: 0.0, lambda: 7.9)
    async with opened(settings, ranks, Faults(), lambda: 0.0) as desk:
        context = Context(
            settings=settings,
            ranks=ranks,
            kv_event_sources={},
            models=Models("tiny", ["sql"]),
            faults=Faults(),
            journal=Journal(1),
            clock=lambda: 0.0,
            wall=lambda: 7.9,
            new_id=lambda: "x",
            refuse=lambda seconds: None,
            die=lambda: None,
            desk=desk,
            fingerprint="f",
            started=0,
        )
    assert context.envelope("r", "sql").model == "sql"
    named = context.envelope("r", None)
    assert (named.id, named.created, named.model, named.fingerprint) == ("r", 7, "tiny", "f")
    assert not named.cache_details
