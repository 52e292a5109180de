"""How content becomes records: one module a format, incremental, without I/O."""
