"""Files that are being changed: where their bytes are until HDFS has them, and when it gets them."""
