"""What a pipeline tells its model of a prompt, recorded from its own call."""
