"""Messages to workers and the leases that make them safe to lose or repeat. It knows no jobs and
no reminders."""
