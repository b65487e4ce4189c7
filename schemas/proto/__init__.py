"""Messages of the gRPC service; all modules but this one are made of `tickstream.proto`."""
