"""Alerts: what a person should know, and the channels through which it is sent."""
