"""The proxy: an OpenAI-compatible gateway whose bytes move in Rust."""
