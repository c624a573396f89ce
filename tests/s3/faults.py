"""A reverse proxy that breaks some answers as a busy or failing object store does.

    python tests/s3/faults.py http://127.0.0.1:9000 0.10 0.05 0.03

The numbers are those of `Rates`: the shares of requests that are refused and dropped, of long answers that
are cut, and so on. It prints its port. A request is refused with 503 SlowDown before the store sees it, or
its connection is dropped, or the store's answer breaks off in the middle. Which ones is drawn from a seed.
Clients sign for the address they speak to, and the store checks that signature: headers pass unchanged.
`GET /__counts` tells what was done so far.
"""

import asyncio
import hashlib
import math
import random
import sys
from collections import Counter
from dataclasses import dataclass

import aiohttp
import yarl
from aiohttp import web

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
HANG_SECONDS = 60
# Of the connection between two of the three parties, so not to be passed on.
HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
LONG_BODY_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of requests: refused, dropped, long answers cut, never answered, writes taken and lost.

    After `deny_after` requests that passed, all are denied.
    """

    slow_down: float = 0.10
    drop: float = 0.05
    cut: float = 0.03
    hang: float = 0.0
    lose: float = 0.0
    deny_after: float = math.inf


class Proxy:
    """Passes requests on, or does not."""

    def __init__(self, upstream: str, rates: Rates, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._upstream, self._rates = upstream, rates
        self._dice = random.Random(seed)

    async def start(self) -> int:
        """Listen on a port of loopback; its number."""
        connector = aiohttp.TCPConnector(limit=128)
        self._client = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/__counts":
            return web.json_response(self.counts)
        body, dice = await request.read(), self._dice.random()
        if dice < self._rates.slow_down:
            self.counts["slow_down"] += 1
            return web.Response(status=503, content_type="application/xml", body=SLOW_DOWN)
        if dice < self._rates.slow_down + self._rates.drop:
            self.counts["drop"] += 1
            return self._hang_up(request)
        if self.counts["passed"] >= self._rates.deny_after:
            self.counts["denied"] += 1
            return web.Response(status=403, content_type="application/xml", body=EXPIRED)
        dice -= self._rates.slow_down + self._rates.drop
        if dice < self._rates.hang:
            self.counts["hang"] += 1
            await asyncio.sleep(HANG_SECONDS)
            return self._hang_up(request)
        if request.method == "PUT" and dice < self._rates.hang + self._rates.lose:
            self.counts["lose"] += 1
            return web.Response(status=200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324
        url = yarl.URL(self._upstream + request.raw_path, encoded=True)
        options = {"headers": request.headers, "data": body or None, "allow_redirects": False}
        async with self._client.request(request.method, url, **options) as answer:
            data = await answer.read()
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_length = (
                int(answer.headers.get("Content-Length", 0)) if request.method == "HEAD" else len(data)
            )
        await response.prepare(request)
        if len(data) > LONG_BODY_BYTES and self._dice.random() < self._rates.cut:
            self.counts["cut"] += 1
            await response.write(data[: len(data) // 2])
            return self._hang_up(request)
        self.counts["passed"] += 1
        await response.write(data)
        return response

    def _hang_up(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError


async def serve(upstream: str, rates: Rates) -> None:
    """Run until the process is stopped."""
    print(await Proxy(upstream, rates, seed=7).start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Rates(*map(float, sys.argv[2:]))))
