"""Mounting: mount(2) with a descriptor of ours, and the processes that serve the mounts."""
