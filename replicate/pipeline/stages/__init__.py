"""One short file per stage: read, call the library, write. Paths are given by dvc.yaml."""
