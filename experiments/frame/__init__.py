"""What the experiments share: runs that can be interrupted, their command, their records, tables and figures."""
