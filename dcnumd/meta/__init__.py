"""Pipeline identifiers, the methods and keywords in them, and the table of features."""
