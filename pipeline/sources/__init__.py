"""Where ticks come from when not from Kafka: files."""
