"""The way of changed files into HDFS: uploader processes, which can be killed, and what the daemon tells them."""
