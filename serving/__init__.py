"""Serving over HTTP: the app, and the models behind it."""
