"""Alerts: messages to people, and the channels through which they are sent."""
