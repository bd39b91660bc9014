"""The demo's one-shot: looks once how full the disk is."""

import shutil

usage = shutil.disk_usage("/")
print(f"report: {usage.used * 100 // usage.total} % of the disk is in use")
