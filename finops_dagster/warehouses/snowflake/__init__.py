"""The Snowflake warehouse."""
