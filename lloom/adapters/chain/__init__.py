"""A chain as a node uses it: servers, the contract, transactions that arrive once, events that survive reorganisations."""
