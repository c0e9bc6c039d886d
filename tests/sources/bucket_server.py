"""Loopback server for a bucket of files, with two keys per page of its listing."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, unquote, urlsplit

from wandb_server import Handler, Loopback


class Bucket(Loopback):
    """Bucket that lists two keys per page."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        super().__init__()
        self.server.RequestHandlerClass = type("BoundBucket", (BucketHandler,), {"world": self})


class BucketHandler(Handler):
    world: Bucket

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.world.requests.append(("GET", unquote(self.path), {k.lower(): v for k, v in self.headers.items()}))
        key = unquote(parts.path[1:])
        if not key:
            asked = parse_qs(parts.query)
            self.listing(asked["prefix"][0], int(asked.get("continuation-token", ["0"])[0]))
        elif key not in self.world.files:
            self.reply(b"<Error/>", 404)
        elif (fault := self.world.faults.get(key)) is not None:
            fault(self, self.world.files[key])
        else:
            self.reply(self.world.files[key])

    def listing(self, prefix: str, start: int) -> None:
        keys = sorted(k for k in self.world.files if k.startswith(prefix))
        page = keys[start : start + 2]
        more = start + 2 < len(keys)
        rows = "".join(
            f"<Contents><Key>{k}</Key><Size>{len(self.world.files[k])}</Size>"
            f"<ETag>&quot;{hashlib.md5(self.world.files[k]).hexdigest()}&quot;</ETag></Contents>"
            for k in page
        )
        token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        text = (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{rows}'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}</ListBucketResult>"
        )
        self.reply(text.encode(), kind="application/xml")
