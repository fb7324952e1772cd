"""The library's face: functions on networks and batches in memory, without a configuration or a run folder."""
