"""Outgoing HTTP calls: the only opener of an HTTP client."""
