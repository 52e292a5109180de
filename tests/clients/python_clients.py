"""CLIENT URL COUNT: so many records by one of Python's HTTP clients, as its users write it."""

from __future__ import annotations

import asyncio
import gzip
import sys


def by_requests(url: str, count: int) -> None:
    import requests

    with requests.Session() as session:
        for number in range(count):
            session.post(url, json={"n": number}, timeout=30).raise_for_status()


def by_httpx(url: str, count: int) -> None:
    import httpx

    with httpx.Client() as client:
        for number in range(count - 1):
            client.post(url, json={"n": number}).raise_for_status()
        # A generator is sent chunked, and what it gives is compressed here.
        content = iter([gzip.compress(b'{"n":'), gzip.compress(b"0}")])
        client.post(url, content=content, headers={"Content-Encoding": "gzip"}).raise_for_status()


def by_aiohttp(url: str, count: int) -> None:
    import aiohttp

    async def send_all() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:

            async def send(number: int) -> None:
                # compress has aiohttp deflate, chunk by chunk.
                async with session.post(url, data=b"%d" % number, compress=number % 2 == 1) as answer:
                    await answer.json()

            await asyncio.gather(*(send(number) for number in range(count)))

    asyncio.run(send_all())


def by_cloudevents(url: str, count: int) -> None:
    import requests
    from cloudevents.v1.conversion import to_binary, to_structured
    from cloudevents.v1.http import CloudEvent

    for number in range(count):
        event = CloudEvent({"source": "/python", "type": "test"}, {"n": number})
        headers, content = to_structured(event) if number % 2 else to_binary(event)
        requests.post(url, data=content, headers=headers, timeout=30).raise_for_status()


def main() -> None:
    """Run the client that the arguments name."""
    client, url, count = sys.argv[1:]
    {
        "requests": by_requests,
        "httpx": by_httpx,
        "aiohttp": by_aiohttp,
        "cloudevents": by_cloudevents,
    }[client](url, int(count))


if __name__ == "__main__":
    main()
