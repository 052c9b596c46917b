from random import Random

import msgspec
import pytest

from benchmarks.schedule.prompts import BLOCK_BYTES, BLOCK_TOKENS, Prompts, prompts_of


@pytest.mark.parametrize("blocks", [4, 32, 256])
def test_prompts_are_as_long_as_asked(blocks):
    prompts = Prompts(blocks, Random(1))
    for prompt in (*prompts.known, *(prompts.draw() for _ in range(8))):
        messages = msgspec.json.decode(prompt.body, type=dict[str, msgspec.Raw])["messages"]
        assert len(messages) == blocks * BLOCK_BYTES
        assert len(prompt.ids) == 4 * blocks * BLOCK_TOKENS


def shared(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


@pytest.mark.parametrize("part", ["body", "ids"])
def test_half_of_the_prompts_are_known_but_for_their_end_and_a_quarter_not_at_all(part):
    prompts = Prompts(256, Random(1))
    drawn = [getattr(prompts.draw(), part) for _ in range(40)]
    known = [getattr(prompt, part) for prompt in prompts.known]
    reached = [max(shared(one, old) for old in known) / len(one) for one in drawn]

    assert sum(share > 0.95 for share in reached) == 20
    assert sum(0.45 < share < 0.55 for share in reached) == 10
    assert sum(share < 0.05 for share in reached) == 10


def test_no_prompt_is_like_another():
    prompts = Prompts(32, Random(1))
    assert len({prompts.draw().body for _ in range(400)}) == 400


def test_every_process_knows_the_same_conversations():
    first, second = prompts_of([32, 64]), prompts_of([64])
    assert first[1].known == second[0].known
    assert first[0].known != second[0].known
