"""The same readers over gRPC; besides generated files the only importer of grpc."""
