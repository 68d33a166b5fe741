"""Alerts: what a person should know, and the ways in which it is sent."""
