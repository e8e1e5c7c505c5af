"""Known requests in pieces, and several at once."""

from __future__ import annotations

import numpy as np
import pytest

from tests.service.inside import ORDINARY, Client, Inside, infer, post, random_like, shown, tensors_of, words_of
from tests.service.known_infer.knowing import ONE, PAIR, WIDTH, know

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_requests_sent_at_once_are_answered_in_turn(service: Inside, client: Client) -> None:
    """Whatever they are: known, unknown by their words, no inference, an error."""
    await know(service, client, infer("pair", ONE))
    values = [random_like(ONE, seed) for seed in range(12)]
    requests = [infer("pair", each) for each in values]
    live = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    for others in (
        [],
        [live],
        [infer("pair", ONE, ORDINARY)],
        [infer("nobody", ONE)],
        [live, infer("pair", ONE, query="?")],
    ):
        for order in (requests + others, others + requests, requests[:6] + others + requests[6:]):
            service.known.clear()
            client.send(*order)
            for request in order:
                answer = await client.answer()
                if request in requests:
                    assert answer.binary()[1] == tensors_of(values[requests.index(request)])
                else:
                    assert answer.status == (404 if b"nobody" in request else 200)
            assert others or len(service.known) >= 1
            # After the others, too, there are known ones.
            service.known.clear()
            await client.ask(requests[0])
            assert len(service.known) == 1


async def test_a_known_request_waits_for_one_before_it(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("patient", ONE, query="?first"))
    await service.gate.reached()
    client.send(infer("pair", ONE))
    client.send(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    service.gate.open()
    found = [await client.answer() for _ in range(3)]
    assert [answer.status for answer in found] == [200] * 3
    assert b'"patient"' in found[0].body
    assert b'"pair"' in found[1].body
    assert found[2].json == {"live": True}


async def test_what_follows_a_known_request_waits_for_it(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    service.gate.shut()
    client.send(infer("pair", ONE))
    await service.gate.reached()
    client.send(infer("simple", PAIR), b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n", infer("pair", ONE))
    service.gate.open()
    found = [await client.answer() for _ in range(4)]
    assert b'"pair"' in found[0].body
    assert b'"simple"' in found[1].body
    assert found[2].json == {"live": True}
    assert shown(found[3]) == shown(found[0])


async def test_a_request_in_pieces_is_answered(service: Inside, client: Client) -> None:
    request = infer("pair", ONE)
    expected = await know(service, client, request)
    head = request.index(b"\r\n\r\n") + 4
    for at in (head, head + 5, len(request) - 1):
        client.send(request[:at])
        await service.wait_for_metric(1, "fovea_requests_in_flight", protocol="http")
        assert shown(await client.ask(request[at:])) == shown(expected)
        assert not service.known
    client.send(request[:10])
    assert shown(await client.ask(request[10:])) == shown(expected)


async def test_a_body_in_chunks_is_answered(service: Inside, client: Client) -> None:
    words, tensors = words_of(ONE), tensors_of(ONE)
    expected = await know(service, client, post("pair", words, tensors))
    head = post("pair", words, b"", "transfer-encoding: chunked").removesuffix(words)
    whole = words + tensors
    for size in (len(whole), 7):
        for trailer in (b"", b"x-request-id: late\r\n"):
            parts = [whole[at : at + size] for at in range(0, len(whole), size)]
            chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
            request = b"".join([head, *chunks, b"0\r\n", trailer, b"\r\n"])
            service.known.clear()
            assert shown(await client.ask(request)) == shown(expected)
            assert len(service.known) == 1
            # In two.
            client.send(request[: len(head) + 20])
            assert (await client.ask(request[len(head) + 20 :])).body == expected.body


async def test_a_body_that_is_no_http_is_refused(service: Inside) -> None:
    async with await service.connect() as client:
        await know(service, client, infer("pair", ONE))
        head = post("pair", words_of(ONE), b"", "transfer-encoding: chunked").removesuffix(words_of(ONE))
        assert (await client.ask(head, b"no chunk")).error(400) == "Invalid HTTP request received."
        assert await client.ending() == b""


async def test_a_large_request_is_answered(service: Inside, client: Client) -> None:
    """Larger than what is read at a time."""
    values = {"INPUT0": np.random.default_rng(0).random((1, 1000, 1000), np.float32)}
    for _ in range(2):
        assert (await client.ask(infer("open", values))).binary()[1] == tensors_of(values)


async def test_who_does_not_read_the_answers_is_read_no_further(service: Inside, client: Client) -> None:
    """And gets all of them, in their order, once he does."""
    values = {"INPUT0": np.zeros((1, 100, 100), "<f4")}
    await know(service, client, infer("open", values))
    count = 400
    async with await service.connect() as slow:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        requests = [infer("open", {"INPUT0": np.full((1, 100, 100), number, "<f4")}) for number in range(count)]
        slow.send(*requests)
        answered, unchanged = 0, 0
        while unchanged < 50:
            await client.ask(infer("pair", ONE))
            unchanged = unchanged + 1 if answered == service.statistics("open").success.count else 0
            answered = service.statistics("open").success.count
        assert await service.metric("fovea_requests_in_flight", protocol="http") <= 1
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for number in range(count):
            assert np.frombuffer((await slow.answer()).binary()[1], "<f4")[0] == number


async def test_answers_that_nobody_takes_do_not_pile_up(service: Inside, client: Client) -> None:
    """Though each request is sent when the one before it was answered, and is known."""
    request, count = infer("wide", {"INPUT0": np.ones((1, 1), "<f4")}), 200
    await know(service, client, request)
    before = service.statistics("wide").success.count
    async with await service.connect() as slow:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            slow.send(request)
            # By then it was answered, if it is at all.
            await client.ask(infer("wide", {"INPUT0": np.ones((1, 1), "<f4")}))
        assert 1 <= len(service.known) - count < count / 2
        assert service.statistics("wide").success.count - before - count < count / 2
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await slow.answer()).binary()[1] == np.ones(WIDTH, "<f4").tobytes()
