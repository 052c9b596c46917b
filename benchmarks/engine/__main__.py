"""``python -m benchmarks.engine``: one fake vLLM in the foreground."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop

from benchmarks.engine.faults import Faults
from benchmarks.engine.server import running
from benchmarks.engine.settings import CONNECTORS, ROLES, EngineSettings
from extproc.supervise import open_files

Command = TypeVar("Command", bound=Callable[..., None])

log = logging.getLogger("kvoy.engine")

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)

_PORTS = click.IntRange(-1, 65535)

_DEFAULT: dict[str, Any] = {field.name: field.default for field in fields(EngineSettings)}


def _option(name: str, text: str, **more: Any) -> Callable[[Command], Command]:
    field = name.removeprefix("--").replace("-", "_")
    return click.option(name, default=_DEFAULT[field], show_default=True, help=text, **more)


@click.command(
    context_settings={"max_content_width": 100},
    epilog="""\b
Examples:
  python -m benchmarks.engine --name pod-a --port 8000 --model deepseek-r1-7b
  python -m benchmarks.engine --name slow --port 8001 --inter-token-s 0.5 --reply-tokens 60
  python -m benchmarks.engine --name dp --data-parallel-size 2 --kv-events 5557 --kv-events-replay 5567
  python -m benchmarks.engine --name p --port 8003 --role prefill --connector nixl --kv-port 5600
  python -m benchmarks.engine --name d --port 8004 --role decode --connector nixl
  python -m benchmarks.engine --port 8002 --fault '[{"kind":"status","status":503,"times":2}]'
\b
At run time:
  curl http://127.0.0.1:8000/_engine/requests
  curl http://127.0.0.1:8000/_engine/faults -d '[{"kind":"reset","after_tokens":3}]'
  curl http://127.0.0.1:8000/_engine/faults -d '[]'
\b
Kinds of faults:
  {"kind":"status","status":503,"times":2}  answer so, the next 2 requests (all without times)
  {"kind":"hang","after_tokens":3}          stop after 3 tokens, hold the connection (0: before headers)
  {"kind":"reset","after_tokens":3}         reset the connection after 3 tokens
  {"kind":"die","after_tokens":3}           the same, and the whole engine dies
  {"kind":"slow_start","seconds":5}         503 on every path, /health included, for 5 s
  {"kind":"refuse","seconds":5}             reset all connections and refuse new ones for 5 s
  {"kind":"lose_events","batches":3}        subscribers miss the next 3 batches of KV events
  {"kind":"no_tokens","status":500}         answer /tokenize so
  {"kind":"no_params","times":1}            the next prefill answers without kv_transfer_params
""",
)
@_option("--name", "Who answers: first words of every answer and header x-engine-name.")
@_option("--model", "Served model name.")
@_option("--host", "Address to listen on.")
@_option("--port", "Port to listen on; 0 takes a free one and logs it.", type=click.IntRange(0, 65535))
@click.option("--lora", "loras", multiple=True, help="LoRA adapter loaded at start; may be repeated.")
@_option("--max-loras", "LoRA adapters that may run at once; 0 switches LoRA off.")
@_option("--max-model-len", "Tokens of prompt and answer together.")
@_option("--block-size", "Tokens per KV block.")
@_option("--num-blocks", "KV blocks of each rank.")
@_option("--data-parallel-size", "Ranks behind this port; header x-data-parallel-rank picks one.")
@_option("--max-running", "Requests computed at once.")
@_option("--max-waiting", "Requests in the queue; more get 503.")
@_option("--prefill-tokens-per-s", "Prompt tokens per second, shared by all requests; inf for no delay.")
@_option("--inter-token-s", "Seconds between two tokens of an answer.")
@_option("--inter-token-s-per-answer", "Added for each further answer that runs.")
@_option("--prefill-chunk-tokens", "Prompt tokens that the next token of an answer waits for; 0: none.")
@_option("--reply-tokens", "Tokens of an answer that the request does not cut.")
@click.option(
    "--prompt-tokens-details/--no-prompt-tokens-details",
    default=True,
    show_default=True,
    help="Whether usage says how many prompt tokens were cached.",
)
@_option("--kv-events", "Port for KV events, rank r has the one r higher; 0: any, -1: off.", type=_PORTS)
@_option("--kv-events-replay", "Likewise, the port that answers who missed some.", type=_PORTS)
@_option("--kv-events-topic", "ZeroMQ topic of the events.")
@_option("--kv-events-buffer", "Batches of events that each rank keeps for replay.")
@_option("--role", "What it is for, where prefill and decode are apart.", type=click.Choice(ROLES))
@_option("--connector", "How KV caches travel between engines.", type=click.Choice(CONNECTORS))
@_option("--kv-port", "Port where other engines reach its KV cache; 0: any.", type=click.IntRange(0, 65535))
@_option("--engine-id", "Under which other engines know it; empty: its name.")
@_option("--tensor-parallel-size", "Told to other engines; no effect but on who believes it.")
@click.option(
    "--kv-peer",
    "kv_peers",
    multiple=True,
    help="With lmcache or http: host:port of the KV port of an engine whose prompts it can load.",
)
@_option("--transfer-s-per-token", "Seconds for the KV cache of one token to reach another engine.")
@_option("--handshake-s", "Seconds for the first contact between two engines.")
@_option("--kv-lease-s", "Seconds that a prefill engine keeps blocks for a decode engine (NIXL).")
@_option("--transfer-timeout-s", "Seconds that one leg waits for the other where both begin at once.")
@_option("--keep-requests", "Requests that /_engine/requests shows.")
@click.option("--fault", "faults", default="[]", help="JSON list of faults in force from the start.")
@click.option("--tls-cert", type=_PEM, help="PEM certificate chain: speak HTTPS.")
@click.option("--tls-key", type=_PEM, help="PEM private key.")
def main(faults: str, **given: Any) -> None:
    """A fake vLLM: OpenAI-compatible API and vLLM's metrics, without a model.

    Runs until Ctrl-C or SIGTERM; ends with status 1 when a body or a fault kills it.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s engine %(message)s")
    try:
        settings = EngineSettings(faults=tuple(Faults.parse(faults)), **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    open_files.allow_many()
    try:
        alive = uvloop.run(_serve(settings))
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        log.error("%s cannot listen on %s: %s", settings.name, where, error.strerror or error)
        sys.exit(1)
    if not alive:
        log.error("%s died", settings.name)
        sys.exit(1)


async def _serve(settings: EngineSettings) -> bool:
    """Serve until a signal comes (True) or the engine dies."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as engine:
        log.info("%s serves %s on %s", engine.name, settings.model, engine.url)
        ends = [loop.create_task(stop.wait()), loop.create_task(engine.death())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return engine.alive


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.engine")
