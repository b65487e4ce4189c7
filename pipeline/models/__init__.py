"""Fitting of models, offline, from what a replay has written."""
