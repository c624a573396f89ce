"""An S3 server with a bucket of a million keys and no data: it answers only listings.

    python benchmarks/listing.py 1000000

It prints its port. Keys are `survey/0000000.jpg` and so on. A page has as many keys as requested.
"""

import asyncio
import sys

from aiohttp import web

PREFIX = "survey/"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    '<ETag>"{number:032x}"</ETag><Size>14000</Size><StorageClass>STANDARD</StorageClass></Contents>'
)
PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>many</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>"
    "<IsTruncated>{more}</IsTruncated>{next}{entries}</ListBucketResult>"
)


def page(query: "dict[str, str]", objects: int) -> str:
    """Return one answer to ListObjectsV2."""
    most = min(int(query.get("max-keys", 1000)), 1000)
    first = int(query.get("continuation-token", 0))
    last = min(first + most, objects)
    entries = "".join(ENTRY.format(key=f"{PREFIX}{i:07d}.jpg", number=i) for i in range(first, last))
    more = last < objects
    token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
    return PAGE.format(
        prefix=query.get("prefix", ""),
        count=last - first,
        most=most,
        more=str(more).lower(),
        next=token,
        entries=entries,
    )


async def serve(objects: int) -> None:
    """Run until the process is stopped."""

    async def answer(request: web.Request) -> web.Response:
        if request.method != "GET" or "list-type" not in request.query:
            return web.Response(status=404)
        return web.Response(text=page(dict(request.query), objects), content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
