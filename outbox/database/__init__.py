"""
PostgreSQL helpers: its clock, SQL statements, storable values and ids.

Times that decide something come from the database, because the clocks of processes differ. Values from outside
are made storable here.
"""
