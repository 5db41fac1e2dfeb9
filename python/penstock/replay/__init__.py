"""A local upstream that answers as servers do, well or badly, for demos, tests and benchmarks.

    from penstock.replay import upstream
    up = upstream()                 # starts once for the process; nothing happens at import
    up.base_url                     # "http://127.0.0.1:PORT/v1"
    up.stats()                      # what the callers did

`completion(model="replay/hello", ...)` uses it without more ado; `penstock replay` serves it to other programs.

POST {any prefix}/chat/completions answers with the case that the model names: `hello`, or `chat/hello`. So do
{any prefix}/messages and {any prefix}/responses, in their own families.
GET /v1/models lists the cases, GET /stats tells what each caller did, DELETE /stats forgets it.

What goes wrong is asked for after a `?` in the model's name, or in the request header `x-replay`, in one grammar:

    hello?status=429&retry_after=2          an error and its headers
    long-200?delay=20                       200 deltas, one every 20 ms
    tools?chunk=random:7&fail=1&cut=finish  in pieces of random size; the first request is cut before its finish

PLACE is a number of events (negative: counted from the end), `finish` (before the event with the finish reason),
`finish+1` and so on. `penstock.replay.faults.Script` and `penstock replay --help` have all the keys.
"""

from .ledger import Exchange
from .server import Upstream, upstream

__all__ = ["Exchange", "Upstream", "upstream"]
