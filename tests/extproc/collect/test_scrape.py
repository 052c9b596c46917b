import pytest

from extproc.collect.connection import Unreachable, opened
from extproc.collect.metrics import Unreadable
from extproc.collect.scrape import ADAPTERS_STAND_S, Scraper


@pytest.fixture
async def scraper(pod, site_of, clock):
    async with opened(site_of(pod.address)) as connection:
        yield Scraper(connection, clock)


async def test_one_look_shows_metrics_and_adapters(pod, scraper):
    pod.lists("lora-b", "lora-a")

    sight = await scraper.look()

    assert sight.exposition.ranks[0].running == 0
    assert sight.adapters == ("lora-a", "lora-b")
    assert not sight.paused


async def test_adapters_are_asked_for_now_and_then(pod, scraper, clock):
    pod.lists("lora-a")
    await scraper.look()
    await scraper.look()
    assert pod.asked.count("/v1/models") == 1

    pod.lists()
    clock.now += ADAPTERS_STAND_S

    assert (await scraper.look()).adapters == ()


async def test_an_adapter_that_shows_up_in_the_metrics_is_asked_about_at_once(pod, scraper):
    pod.lists()
    await scraper.look()
    pod.lists("new")
    pod.answers["/metrics"] += 'vllm:lora_requests_info{running_lora_adapters="new"} 9\n'

    assert (await scraper.look()).adapters == ("new",)
    await scraper.look()
    assert pod.asked.count("/v1/models") == 2


@pytest.mark.parametrize("answer", [404, 500, b"{", b'{"data": 3}', b"\xff"])
async def test_adapters_that_are_not_told_are_unknown(pod, scraper, answer):
    pod.answers["/v1/models"] = answer

    assert (await scraper.look()).adapters is None


async def test_a_pod_that_is_not_in_development_mode_is_asked_once_whether_it_sleeps(pod, scraper):
    await scraper.look()
    await scraper.look()

    assert pod.asked.count("/is_sleeping") == pod.asked.count("/is_paused") == 1


@pytest.mark.parametrize("path", ["/is_sleeping", "/is_paused"])
async def test_a_pod_that_sleeps_or_is_paused_is_seen(pod, scraper, path):
    field = path.removeprefix("/")
    pod.answers["/is_sleeping"] = b'{"is_sleeping": false}'
    pod.answers["/is_paused"] = b'{"is_paused": false}'
    assert not (await scraper.look()).paused

    pod.answers[path] = f'{{"{field}": true}}'

    assert (await scraper.look()).paused


@pytest.mark.parametrize("answer", [500, b"", b"[]", b'{"other": true}', b"\xff"])
async def test_nonsense_about_sleep_means_awake_and_is_asked_again(pod, scraper, answer):
    pod.answers["/is_paused"] = answer
    assert not (await scraper.look()).paused

    pod.answers["/is_paused"] = b'{"is_paused": true}'

    assert (await scraper.look()).paused


async def test_another_life_is_asked_for_everything_again(pod, scraper):
    pod.lists("lora-a")
    await scraper.look()
    pod.lists()
    pod.answers["/is_paused"] = b'{"is_paused": true}'
    name = "process_start_time_seconds"
    pod.answers["/metrics"] = pod.answers["/metrics"].replace(f"{name} 1.", f"{name} 2.")

    sight = await scraper.look()

    assert (sight.adapters, sight.paused) == ((), True)


async def test_an_error_status_is_told(pod, scraper):
    pod.answers["/metrics"] = 503

    with pytest.raises(Unreadable, match="/metrics answers 503"):
        await scraper.look()


async def test_what_is_no_engine_is_told(pod, scraper):
    pod.answers["/metrics"] = b"\xff\xfe"

    with pytest.raises(Unreadable, match="no metric of vLLM or SGLang"):
        await scraper.look()


async def test_a_pod_that_is_away_is_told_and_seen_again(pod, scraper):
    await pod.stop()
    with pytest.raises(Unreachable):
        await scraper.look()

    await pod.start(port=int(pod.address.partition(":")[2]))

    assert (await scraper.look()).exposition.ranks
