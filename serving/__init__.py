"""Serving over HTTP: the next room to be built."""
