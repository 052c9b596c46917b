"""One scheduling plugin per file; `extproc.schedule.catalogue` lists them by name."""
