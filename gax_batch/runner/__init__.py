"""Settings, preparation, execution and record of a run, and the commands that predict one."""
