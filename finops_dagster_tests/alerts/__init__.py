"""Alerts: the ways in which they are sent, to real servers on this machine."""
