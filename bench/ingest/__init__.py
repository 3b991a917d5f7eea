"""Captures to packets and sessions: one pass over a memory map, in compiled code."""

from bench.ingest.capture import CaptureIndex, inspect, read_capture
from bench.ingest.containers import Damage

__all__ = ["CaptureIndex", "Damage", "inspect", "read_capture"]
