"""Any SQL database that SQLAlchemy connects to and that has transactions."""
