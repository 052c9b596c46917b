import asyncio
import ssl
from pathlib import Path

import pytest

from extproc.collect import connection
from extproc.collect.connection import Unreachable, opened
from extproc.state.records import Tls

CERTIFICATES = Path(__file__).parents[2] / "controller" / "xds" / "tls"
NAME = "engine.test"


async def got(site, path="/metrics"):
    async with opened(site) as there:
        return await there.get(path)


async def test_an_answer_has_a_status_and_a_body(pod, site_of):
    pod.answers["/metrics"] = b"m 1\n"

    assert await got(site_of(pod.address)) == connection.Answer(200, b"m 1\n")
    assert (await got(site_of(pod.address), "/other")).status == 404


async def test_redirects_are_not_followed(pod, site_of):
    pod.answers["/metrics"] = 302

    assert (await got(site_of(pod.address))).status == 302


async def test_nobody_there_is_told_by_path(pod, site_of):
    await pod.stop()

    with pytest.raises(Unreachable, match=r"^/metrics: "):
        await got(site_of(pod.address))


async def test_silence_ends(pod, site_of, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.1)
    pod.delay_s = 5

    with pytest.raises(Unreachable, match=r"^/metrics did not answer within 0\.1 s$"):
        await got(site_of(pod.address))


async def test_an_answer_without_end_is_refused(pod, site_of, monkeypatch):
    monkeypatch.setattr(connection, "LONGEST_ANSWER", 1000)
    pod.answers["/metrics"] = b"x" * 5000

    with pytest.raises(Unreachable, match="its answer has more than 1000 bytes"):
        await got(site_of(pod.address))


async def test_what_is_no_http_is_unreachable(site_of):
    async def talk(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=r"^/metrics: "):
            await got(site_of(f"127.0.0.1:{port}"))


@pytest.fixture
async def tls_pod(start_pod):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / "engine.pem", CERTIFICATES / "engine.key")
    return await start_pod(context)


async def test_https_pods_are_known_by_their_name_and_not_their_address(tls_pod, site_of):
    tls = Tls(NAME, str(CERTIFICATES / "ca.pem"))

    async with opened(site_of(tls_pod.address, tls=tls)) as there:
        assert there.base_url == f"https://{NAME}:{tls_pod.address.partition(':')[2]}"
        assert (await there.get("/metrics")).status == 200


async def test_a_pod_with_another_name_is_not_believed(tls_pod, site_of):
    with pytest.raises(Unreachable, match="certificate"):
        await got(site_of(tls_pod.address, tls=Tls("other.test", str(CERTIFICATES / "ca.pem"))))


async def test_without_its_authority_only_an_unverified_pod_is_read(tls_pod, site_of):
    with pytest.raises(Unreachable, match="certificate"):
        await got(site_of(tls_pod.address, tls=Tls(NAME)))

    assert (await got(site_of(tls_pod.address, tls=Tls(NAME, verify=False)))).status == 200


async def test_a_missing_ca_file_is_named(site_of):
    with pytest.raises(Unreachable, match=r"^its CA file /nowhere/ca\.pem: No such file"):
        await got(site_of("127.0.0.1:1", tls=Tls(NAME, "/nowhere/ca.pem")))
