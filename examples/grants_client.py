"""Grants with Python alone: `grants_client.py URL TOKEN_FILE PERSON ID [FILE]` writes FILE's grant, or removes it.

A grant that somebody else changes meanwhile is not overwritten, and what is wrong with one is told by its field.
"""

import json
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def ask(url: str, token: str, method: str, value: Any = None, etag: str | None = None) -> str | None:
    condition = {"if-match": etag} if etag else {"if-none-match": "*"} if method == "PUT" else {}
    body = None if value is None else json.dumps(value).encode()
    request = Request(url, body, {"authorization": f"Bearer {token}", **condition}, method=method)  # noqa: S310
    with urlopen(request, timeout=30) as answer:  # noqa: S310  the caller's own URL
        return answer.headers["etag"]  # type: ignore[no-any-return]


def main(base: str, token_file: str, person: str, grant: str, file: str = "") -> int:
    url, token = f"{base}/v1/data/grants/{person}/{grant}", Path(token_file).read_text().strip()
    try:
        etag = ask(url, token, "GET")
        wanted = json.loads(Path(file).read_text()) if file else None
        print("now", ask(url, token, "PUT" if file else "DELETE", wanted, etag) or "removed")
    except HTTPError as refused:
        for error in json.loads(refused.read() or "{}").get("errors", []) or [{"message": refused.reason}]:
            print(error.get("field", "request"), error["message"], error.get("remedy", ""), sep=": ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
