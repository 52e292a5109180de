"""FastAPI on uvicorn (httptools, uvloop) with aiokafka: `send_and_wait`, or `send` for "queued"."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request, Response

from bench.peers.python.aio_deliveries import open_aio_deliveries
from bench.peers.python.settings import Settings, parse


def application(settings: Settings) -> FastAPI:
    """POST to "/": the content is the record's value."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_aio_deliveries(settings) as app.state.deliveries:
            yield

    app = FastAPI(lifespan=lifespan)
    deliveries = app.state

    async def produce(request: Request) -> Response:
        status, answer = await deliveries.deliveries.answer(await request.body())
        return Response(answer, status, media_type="application/json")

    app.add_api_route("/", produce, methods=["POST"])
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
