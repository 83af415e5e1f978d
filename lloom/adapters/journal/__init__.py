"""What a node must not forget, on disk: a file, a writer for many callers, and a module for each kind of thing that is kept."""
