"""What engines run on: one folder a runtime."""
