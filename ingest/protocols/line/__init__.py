"""InfluxDB's line protocol, and the paths its clients write to."""
