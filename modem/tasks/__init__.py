"""One file per kind of job; thin: parse, open, call workflow, report."""
