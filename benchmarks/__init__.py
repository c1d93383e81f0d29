"""How fast chains run here, how fast with what one would pick otherwise, and how fast the hardware
could: `python -m benchmarks`.

The work is in `work.py`, how it is timed in `measure.py`, the hardware's limit in `limit.py`, the
peers in `peers/`. Peers that are not installed are left out and named. Every measurement is a
process of its own, so that none finds what another left in memory or caches; on a machine that does
other work the timings are worth nothing.
"""
