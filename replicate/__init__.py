"""Does the local learning coefficient of a language model grow with its size? A replication."""

__version__ = "0.1.0"
