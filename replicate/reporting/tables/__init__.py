"""Makes every table of the paper, the report and the terminal from plans and records."""
