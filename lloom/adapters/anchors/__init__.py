"""The validators of the configuration, as every node uses them: asked, told, relied on for being reached. It serves nobody."""
