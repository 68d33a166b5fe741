"""Metrics for Prometheus, the dashboard and the alert rules, on a real Prometheus."""
