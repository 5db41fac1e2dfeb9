"""The gateway: an OpenAI-compatible proxy whose bytes are moved in Rust. Here is what Python decides for it.

config -> compile -> the native Gateway. `planner` builds the requests that it cannot build itself, `serve` runs it all.
It needs the extra `proxy`.
"""
