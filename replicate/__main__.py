"""`python -m replicate`."""

from replicate.pipeline.cli import run

if __name__ == "__main__":
    run()
