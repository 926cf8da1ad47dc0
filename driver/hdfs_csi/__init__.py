"""The CSI driver: controller and node services over gRPC."""
