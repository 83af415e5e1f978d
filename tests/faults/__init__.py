"""Faults at every stage of a request, under load: `just faults` prints what callers notice of them."""
