"""Alerts: the channels through which they are sent, to real servers on this machine."""
