"""Killed for real: a federation on emulated clouds, in real hosts, while these are killed, stalled and cut off."""
