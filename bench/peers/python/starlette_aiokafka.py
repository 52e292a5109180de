"""Starlette on uvicorn (httptools, uvloop) with aiokafka: `send_and_wait`, or `send` for "queued"."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.python.aio_deliveries import AioDeliveries, open_aio_deliveries
from bench.peers.python.settings import Settings, parse


def application(settings: Settings) -> Starlette:
    """POST to "/": the content is the record's value."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_aio_deliveries(settings) as app.state.deliveries:
            yield

    async def produce(request: Request) -> Response:
        deliveries: AioDeliveries = app.state.deliveries
        status, answer = await deliveries.answer(await request.body())
        return Response(answer, status, media_type="application/json")

    app = Starlette(routes=[Route("/", produce, methods=["POST"])], lifespan=lifespan)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    settings = parse()
    uvicorn.run(
        application(settings),
        host="127.0.0.1",
        port=settings.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
