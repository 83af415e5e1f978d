"""What a validator does for others: catalogue, gossip, probes, relay. It never decides who serves a request."""
