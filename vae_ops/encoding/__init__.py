"""Encodings: each kind of column in one file, fit, encode and decode together; `row.py` joins them."""
