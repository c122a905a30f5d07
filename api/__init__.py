"""The checkout over HTTP: parse, call a SQL function, answer. Every rule of the sale lives in PostgreSQL."""
