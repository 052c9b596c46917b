"""What tests about caches speak: profiles, what is known of engines, what a decision was made on."""

import json
from collections.abc import Iterable
from typing import Any

from tests.envoy.world import Answer, World, until

LOG = "You answer in the style of a ship's log. "


def scheduler(*scorers: str, screens: tuple[str, ...] = ()) -> dict[str, str]:
    """The annotation that chooses by these scorers, in equal parts, among what the screens leave."""
    enabled = [{"name": name, "weight": 1} for name in scorers]
    plugins = {"Filter": {"enabled": list(screens)}, "Score": {"enabled": enabled}}
    return {"kvoy.io/scheduler": json.dumps({"plugins": plugins})}


def conversation(about: str, question: str = "where are we?", repeats: int = 40) -> list[dict[str, str]]:
    """Messages whose beginning, some 10 tokens per repeat, is that of all others `about` the same."""
    return [{"role": "system", "content": f"{about} {LOG * repeats}"}, {"role": "user", "content": question}]


async def observed(world: World, endpoints: Iterable[str], **figures: Any) -> None:
    """Wait until every worker knows these endpoints, with these figures, from a collector."""
    wanted = [f"default/{name}" for name in endpoints]

    async def known() -> bool:
        states = await world.states()
        return len(states) == len(world.stack.admins) and all(
            _fits(state["engines"].get(name), figures) for state in states for name in wanted
        )

    await until(known)


def _fits(engine: dict[str, Any] | None, figures: dict[str, Any]) -> bool:
    if engine is None or engine.get("failing") or engine["age_s"] > 3:
        return False
    return all(engine.get(name) == figure for name, figure in figures.items())


async def preview(world: World, admin: str, body: dict[str, Any]) -> dict[str, Any]:
    """What this worker would decide on a chat request."""
    async with world.session.post(f"{admin}/route", json={"body": body}) as response:
        assert response.status == 200, await response.text()
        told: dict[str, Any] = await response.json()
        return told


async def cached(world: World, model: str, messages: list[dict[str, str]]) -> list[dict[str, int]]:
    """Per worker: endpoint to the tokens of this prompt that it has cached, as far as exactly known."""
    found = []
    for admin in world.stack.admins:
        told = await preview(world, admin, {"model": model, "messages": messages})
        exact = told["cached_by"] == "exact"
        found.append({name(one): one["cached_tokens"] for one in told["candidates"]} if exact else {})
    return found


def name(candidate: dict[str, Any]) -> str:
    """An endpoint as a candidate names it, without its namespace."""
    pod: str = candidate["pod"].removeprefix("default/")
    return pod if candidate["rank"] is None else f"{pod}#{candidate['rank']}"


async def ended(world: World, answer: Answer) -> dict[str, Any]:
    """The explanation of an answered request, once its end is known."""
    told: dict[str, Any] = {}

    async def over() -> bool:
        told.update(await world.explain(answer.headers["x-request-id"]))
        return "outcome" in told

    await until(over)
    return told
