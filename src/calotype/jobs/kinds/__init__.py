"""One module a job type: the steps it runs."""
