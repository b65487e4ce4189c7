"""Kafka without Faust: the only opener of aiokafka."""
