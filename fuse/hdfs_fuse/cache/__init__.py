"""The node's block cache: blocks of file content in files of a local directory, shared by all mounts."""
