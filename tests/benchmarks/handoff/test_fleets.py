import aiohttp
import pytest

from benchmarks.handoff.fleets import FLEETS, P3D1, TOGETHER, gpu, running_fleets


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
def test_a_fleet_says_what_its_gpus_do(fleet) -> None:
    said = [word.strip() for word in fleet.text.split(",")]
    counts = {role: fleet.roles.count(role) for role in fleet.roles}
    assert said == [f"{number} {role or 'together'}" for role, number in counts.items()]
    assert fleet.connector == (None if None in fleet.roles else "nixl")


def test_gpus_are_alike_whatever_they_do() -> None:
    both, prefill = gpu("together-0", None, 8224), gpu("p2d2-0", "prefill", 8224)
    assert (both.role, both.connector) == ("both", "none")
    assert (prefill.role, prefill.connector) == ("prefill", "nixl")
    for field in (
        "prefill_tokens_per_s",
        "inter_token_s",
        "inter_token_s_per_answer",
        "prefill_chunk_tokens",
    ):
        assert getattr(both, field) == getattr(prefill, field) > 0


def test_long_requests_have_more_to_read_in_each_step() -> None:
    assert gpu("a-0", None, 8000).inter_token_s_per_answer == pytest.approx(0.00067, rel=0.01)
    assert gpu("a-0", None, 800).inter_token_s_per_answer == pytest.approx(0.000067, rel=0.01)


async def test_engines_of_the_wanted_fleets_run() -> None:
    async with running_fleets([TOGETHER, P3D1], 100) as pods, aiohttp.ClientSession() as http:
        assert {name: [pod.role for pod in each] for name, each in pods.items()} == {
            "together": [None] * 4,
            "p3d1": ["prefill", "prefill", "prefill", "decode"],
        }
        for name, each in pods.items():
            for pod in each:
                async with http.get(f"http://127.0.0.1:{pod.port}/v1/models") as answer:
                    assert (await answer.json())["data"][0]["id"] == name
