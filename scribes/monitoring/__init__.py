"""What operators look at: probes, health checks, heartbeats, metrics, the dashboard, logs and backups."""
