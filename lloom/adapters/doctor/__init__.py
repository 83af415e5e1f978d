"""Checks of a node and its surroundings, one module for each of these. They change nothing, cost no tokens and tell no secret.

Every check gives findings, and is bounded in time; what Ray has to do with stands in lloom/actors/trial.py.
"""
