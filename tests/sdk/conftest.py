collect_ignore_glob = [
    "drive_*.py"
]  # programs that run beside the vendors' libraries, in an environment of their own
