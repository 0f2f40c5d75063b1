"""The command line: one verb a station."""
