"""`python -m benchmarks` times chains with this project's samplers and with their peers, and
compares both with what the hardware could do.

`work.py` says what is timed, `measure.py` how, `limit.py` what the hardware could do; `peers/`
holds the peers. A peer that is not installed is left out and named. Every measurement has a process
of its own, so that none finds what another left in memory. Timings on a machine that does other
work are worthless.
"""
