"""What is held of executors, by evidence: what we saw ourselves, and what several validators say. It chooses nobody."""
