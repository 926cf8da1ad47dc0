"""The filesystem: HDFS files through FUSE, with a block cache on the node."""
