"""Every table of the paper, the report and the terminal, said once: records and plan to Table."""
