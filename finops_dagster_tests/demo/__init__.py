"""Tests of the example bills."""
