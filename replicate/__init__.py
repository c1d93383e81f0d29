"""Does the local learning coefficient of a language model grow with its size? A replication."""
