"""Many requests at once: `bulk` and `abulk`, their pace, their checkpoint, and the same on more than one machine."""
