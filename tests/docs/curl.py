"""The part of curl that the documentation uses: -X, -H, -d, --data-binary @file, -G and --data-urlencode."""

import argparse
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

parser = argparse.ArgumentParser(prog="curl")
parser.add_argument("url")
parser.add_argument("-X", dest="method")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="data")
parser.add_argument("--data-binary", dest="file")
parser.add_argument("-G", dest="get", action="store_true")
parser.add_argument("--data-urlencode", dest="fields", action="append", default=[])
given = parser.parse_args()

fields = "&".join(
    f"{name}={quote(value, safe='')}" for name, _, value in (one.partition("=") for one in given.fields)
)
url = f"{given.url}?{fields}" if given.get and fields else given.url
headers = {
    name.lower(): value.strip() for name, _, value in (header.partition(":") for header in given.headers)
}
if given.data is not None or given.file is not None:
    headers.setdefault("content-type", "application/x-www-form-urlencoded")
body = None if given.data is None else given.data.encode()
if given.file is not None:
    body = Path(given.file.removeprefix("@")).read_bytes()
try:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=given.method)) as answer:
        sys.stdout.write(answer.read().decode())
except urllib.error.HTTPError as error:
    # The real one would exit with 0; a page of the documentation shows what succeeds.
    sys.exit(f"{error.code} {error.read().decode()}")
