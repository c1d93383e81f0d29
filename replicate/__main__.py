"""Runs the command line when Python is called as `python -m replicate`."""

from replicate.pipeline.cli import run

if __name__ == "__main__":
    run()
