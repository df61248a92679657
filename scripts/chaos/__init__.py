"""`./run.sh chaos`: breaks a live local stack on purpose and counts what was lost, repeated or left behind."""
