"""From words on a command line to settings that make sense, or one sentence that says why not."""
