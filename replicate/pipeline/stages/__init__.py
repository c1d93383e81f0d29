"""Each module runs one stage or command: it reads files, calls the library and writes files."""
