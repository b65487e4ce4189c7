"""Kafka, PostgreSQL and Valkey as child processes: the same code for `up`, the demo and tests."""

from pipeline.servers.fleet import Addresses, Fleet, Report, running_addresses, start_servers

__all__ = ["Addresses", "Fleet", "Report", "running_addresses", "start_servers"]
