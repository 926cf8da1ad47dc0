"""Generated from proto/csi.proto by proto/generate.py; never edited by hand."""
