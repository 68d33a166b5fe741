"""FOCUS files of any provider, in any object store."""
